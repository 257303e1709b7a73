/** What rules grant in amounts, and ways, with real programs; tcpdump says which way packets went. */
import { mkdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectError } from "../helpers/connect-error.ts";
import { allowDirect, blockDirect } from "../helpers/direct-block.ts";
import { InnerCapture } from "../helpers/inner-capture.ts";
import { Lab, waitUntil } from "../helpers/lab.ts";

let lab: Lab;
let policy: string;

const setPolicy = async (text: string) => {
  writeFileSync(policy, text, { mode: 0o600 });
  await lab.pilot("a", "policy", "reload");
};
const peer = async (host: string) => {
  const { peers } = await lab.peers("a");
  return peers.find(({ node }: { node: number }) => node === lab.node(host).node);
};
const drops = async (): Promise<Record<string, number>> => (await lab.status("a")).drops;
/** Megabytes a second that arrive, and whether the connection lived to its end. */
const transfer = async (host: string, port: number, ...more: readonly string[]) => {
  const words = ["-6", "-c", lab.overlay(host), "-p", String(port), "-J", "-t", "4", ...more];
  const { code, stdout } = await lab.exec("a", "iperf3", words, { timeoutMs: 20_000 });
  if (code !== 0) throw new Error(stdout.slice(-500));
  return { code, megabytes: JSON.parse(stdout).end.sum_received.bits_per_second / 8e6 };
};

beforeAll(async () => {
  lab = await Lab.create("terms", { hosts: ["a", "b", "c"] });
  policy = `${lab.folder}/policy`;
  writeFileSync(policy, "allow in any from trusted\nallow out any to trusted\n", { mode: 0o600 });
  await lab.startRendezvous();
  await Promise.all([
    lab.startNode("a", { extraArgs: ["--policy", policy] }),
    lab.startNode("b"),
    lab.startNode("c", { extraArgs: ["--plain-only"] }),
  ]);
  await lab.trust("a", "b");
  await lab.trust("a", "c");
  for (const host of ["b", "c"]) {
    const server = lab.spawn(host, "iperf3", ["-s", "-p", "5201", "--forceflush"]);
    await server.waitForLine(/Server listening/);
  }
  const folder = `${lab.folder}/www`;
  mkdirSync(folder);
  writeFileSync(`${folder}/file`, Buffer.alloc(6_000_000, 7));
  const words = ["-u", "-m", "http.server", "8000", "--bind", lab.overlay("b"), "-d", folder];
  await lab.spawn("b", "python3", words).waitForLine(/Serving HTTP/);
});

afterAll(() => lab?.close());

describe("a limit", () => {
  it("slows TCP down to it, both ways, without ending a connection, and touches no other rule's", async () => {
    await setPolicy("allow out tcp 5201 to b limit 1MB/s\nallow out any to b\n");
    const before = await drops();
    for (const direction of [[], ["-R"]]) {
      const { code, megabytes } = await transfer("b", 5201, ...direction);
      expect(code).toBe(0);
      expect(megabytes).toBeGreaterThan(0.5); // 0.95 to 1.05 where nobody else wants the processor
      expect(megabytes).toBeLessThan(1.15);
    }
    expect((await drops())["over-limit"]).toBeGreaterThan(before["over-limit"] ?? 0);
    const [free] = await Promise.all([
      lab.exec("a", "curl", [
        "-gs",
        "-o",
        "/dev/null",
        "-w",
        "%{speed_download}",
        `http://[${lab.overlay("b")}]:8000/file`,
      ]),
      transfer("b", 5201),
    ]);
    expect(Number(free.stdout)).toBeGreaterThan(2e6); // what the other rule's limit does not let through
  });

  it("holds for plain agents' streams too", async () => {
    await setPolicy("allow out tcp 5201 to c limit 1MB/s\n");
    await waitUntil("a to know what c is", async () => {
      await connectError(lab, "a", lab.overlay("c"), 5201);
      return (await peer("c")).kind === "plain";
    });
    for (const direction of [[], ["-R"]]) {
      const { code, megabytes } = await transfer("c", 5201, ...direction);
      expect(code).toBe(0);
      expect(megabytes).toBeGreaterThan(0.4);
      expect(megabytes).toBeLessThan(1.5); // what the sockets between hold comes first
    }
  });
});

describe("a budget", () => {
  it("ends the flow that would exceed it, refuses the next, and is never exceeded", async () => {
    await setPolicy("allow out tcp 8000 to b budget 2MB/1h\n");
    const onA = await InnerCapture.start(lab, "a");
    const url = `http://[${lab.overlay("b")}]:8000/file`;
    const { code, stdout } = await lab.exec("a", "curl", [
      "-gs",
      "-m",
      "8",
      "-o",
      "/dev/null",
      "-w",
      "%{size_download}",
      url,
    ]);
    expect(code).toBe(56); // the connection was reset
    expect(Number(stdout)).toBeGreaterThan(1_500_000);
    expect(Number(stdout)).toBeLessThan(2_000_000);
    expect(await connectError(lab, "a", lab.overlay("b"), 8000)).toBe("EACCES");
    await onA.stop();
    const passed = await onA.packets(`host ${lab.overlay("b")} and tcp and not icmp6`);
    const bytes = passed.reduce((sum, { text }) => sum + Number(/length (\d+)/.exec(text)?.[1] ?? 0), 0);
    expect(bytes).toBeLessThanOrEqual(2_000_000 + 65_536); // with the packet that was refused on its way out
    expect((await drops())["over-budget"]).toBeGreaterThanOrEqual(1);
  });
});

describe("a number of flows", () => {
  it("lets so many connections begin, and refuses the next at once", async () => {
    await setPolicy("allow out tcp 8000 to b flows 3/10m\n");
    const seen: string[] = [];
    for (let i = 0; i < 5; i++) seen.push(await connectError(lab, "a", lab.overlay("b"), 8000));
    expect(seen).toEqual(["connected", "connected", "connected", "EACCES", "EACCES"]);
    expect((await drops())["over-flows"]).toBe(2);
  });
});

describe("a way", () => {
  /** Where the large packets went that a sent while `act` ran: to b itself, to the relay, and the rest. */
  const ways = async (act: () => Promise<unknown>) => {
    const onWire = await InnerCapture.start(lab, "a", "eth0");
    await act();
    await onWire.stop();
    const count = async (to: string) =>
      (await onWire.packets(`src host ${lab.network.addressOf("a")} and dst host ${to} and udp and greater 900`))
        .length;
    return {
      direct: await count(lab.network.addressOf("b")),
      relay: await count(lab.network.addressOf(lab.rendezvousHost)),
    };
  };
  const ping = (...more: readonly string[]) =>
    lab.exec("a", "ping", ["-6", "-c", "5", "-i", "0.2", "-s", "1000", "-W", "2", ...more, lab.overlay("b")]);

  it("through the relay is taken by the flows of its rule alone, and answered there", async () => {
    await setPolicy("allow out icmp to b via relay\nallow out any to b\n");
    await waitUntil("a direct path", async () => {
      await lab.exec("a", "nc", ["-6", "-z", "-w", "1", lab.overlay("b"), "8000"]);
      return (await peer("b")).path === "direct";
    });
    let answered = "";
    const seen = await ways(async () => (answered = (await ping()).stdout));
    expect(answered).toContain("5 received");
    expect(seen.relay).toBe(5);
    await setPolicy("allow out any to b\n");
    const again = await ways(() => ping());
    expect([again.direct >= 5, again.relay]).toEqual([true, 0]);
  });

  it("that is direct carries nothing else while there is none, tells the program, and is used again", async () => {
    await setPolicy("allow out any to b via direct\n");
    expect((await ping()).stdout).toContain("5 received");
    await blockDirect(lab, ["a", "b"]);
    await waitUntil(
      "the relayed path",
      async () => {
        await lab.pilot("a", "ping", String(lab.node("b").node), "-c", "1").catch(() => undefined);
        return (await peer("b")).path === "relay";
      },
      30_000,
    );
    await new Promise((resolve) => setTimeout(resolve, 3_100));
    let refused = "";
    const seen = await ways(async () => (refused = (await ping()).stdout));
    expect(refused).toContain("Administratively prohibited");
    expect(seen.relay).toBe(0);
    expect((await drops())["wrong-path"]).toBeGreaterThanOrEqual(5);
    await allowDirect(lab, ["a", "b"]);
    await waitUntil(
      "an answer by the direct way",
      async () => (await ping("-c", "1")).stdout.includes("1 received"),
      40_000,
    );
  });
});
