/** Leases with real programs: what was agreed on passes, its end cuts, and neither restarts nor a wrong clock help. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connectError } from "../helpers/connect-error.ts";
import { InnerCapture, RESET } from "../helpers/inner-capture.ts";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { LabClock } from "../helpers/lab-clock.ts";
import { converse, endOf } from "../helpers/watching-programs.ts";

/** In which the daemons are killed and started again, and programs come to talk. */
const LEASE_MS = 15_000;

let lab: Lab;
let clock: LabClock;

beforeEach(async () => {
  lab = await Lab.create("lease", { hosts: ["a", "b"] });
  clock = new LabClock(`${lab.folder}/clock`);
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b", { env: clock.env })]);
});

afterEach(() => lab?.close());

/** a asks b, b approves; both know what holds. */
async function agree(asked: readonly string[], granted: readonly string[]): Promise<void> {
  await lab.pilot("a", "trust", "ask", String(lab.node("b").node), "--purpose", "invoice check", ...asked);
  await waitUntil("b to hear it", async () => (await lab.ask("b", "trust/pending", {})).requests.length === 1);
  await lab.pilot("b", "trust", "approve", "a", ...granted);
  await lab.waitForTrust("a", "b", "mutual");
  await waitUntil("a to hear the limits", async () => (await leaseOf("a"))?.inward !== undefined);
}

const leaseOf = async (host: string): Promise<Reply> => (await lab.ask(host, "trust/ls", {})).entries[0]?.lease;
const serve = (port: number) =>
  lab.spawn("b", "python3", ["-m", "http.server", "--bind", lab.overlay("b"), String(port)]);

describe("a lease", () => {
  it("lets pass what was asked for and granted, and both ends show and enforce the same", async () => {
    await lab.pilot("a", "trust", "ask", String(lab.node("b").node), "--ports", "tcp/7001,tcp/7002", "--for", "2h");
    await waitUntil("b to hear it", async () => (await lab.ask("b", "trust/pending", {})).requests.length === 1);
    const { requests } = await lab.ask("b", "trust/pending", {});
    expect(requests[0]).toMatchObject({ hostname: "a", ports: ["tcp/7001-7002"], forS: 7_200, maxBytes: null });
    await lab.pilot("b", "trust", "approve", "a", "--ports", "tcp/7002-7003", "--max", "50MB");
    await lab.waitForTrust("a", "b", "mutual");
    await waitUntil("both to know both limits", async () => {
      const [a, b] = [await leaseOf("a"), await leaseOf("b")];
      return a.leftBytes !== null && b.endsInS !== null;
    });
    for (const [host, inward, outward] of [
      ["a", [], ["tcp/7002"]],
      ["b", ["tcp/7002"], []],
    ] as const) {
      const lease = await leaseOf(host);
      expect(lease).toMatchObject({ inward, outward, endedBy: null });
      expect(lease.endsInS).toBeGreaterThan(7_100);
      expect(lease.leftBytes).toBeGreaterThan(49_990_000);
      const { peers } = await lab.status(host);
      expect(peers[0].lease).toMatchObject({ inward, outward });
    }
    expect((await lab.pilot("b", "whois", lab.overlay("a"))).lease.inward).toEqual(["tcp/7002"]);

    for (const port of [7001, 7002, 7003]) serve(port);
    await waitUntil("the server", async () => (await connectError(lab, "a", lab.overlay("b"), 7002)) === "connected");
    const onB = await InnerCapture.start(lab, "b");
    for (const port of [7001, 7003, 22]) expect(await connectError(lab, "a", lab.overlay("b"), port)).toBe("EACCES");
    expect(await connectError(lab, "b", lab.overlay("a"), 7002)).toBe("EACCES");
    const ping = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "1", lab.overlay("b")]);
    expect(ping.stdout).toContain("Administratively prohibited");
    await onB.stop();
    expect(await onB.packets(`src host ${lab.overlay("a")}`)).toEqual([]);
  });

  it("ends on time though the wall clock is set and the daemons are killed, and its end cuts with its own reason", async () => {
    const began = performance.now();
    await agree(["--ports", "tcp/7001,udp/7002"], ["--for", `${LEASE_MS / 1_000}s`]);
    const agreed = performance.now();
    clock.set(-86_400 * 30);
    await lab.stopNode("b", "SIGKILL");
    await lab.startNode("b", { env: clock.env });
    clock.set(86_400 * 30);
    await lab.stopNode("a", "SIGKILL");
    await lab.startNode("a");
    await waitUntil("packets to pass again", async () => (await leaseOf("a")).endsInS !== null);
    const [tcp, udp, onA, onB] = await Promise.all([
      converse(lab, "idle", { client: "a", server: "b", port: 7001 }),
      converse(lab, "udp", { client: "a", server: "b", port: 7002 }),
      InnerCapture.start(lab, "a"),
      InnerCapture.start(lab, "b"),
    ]);
    expect(performance.now() - began).toBeLessThan(LEASE_MS - 1_000); // what its end is to cut is under way

    const ends = await Promise.all([tcp.server, tcp.client, udp.server, udp.client].map((one) => endOf(one, LEASE_MS)));
    expect(performance.now() - began).toBeGreaterThan(LEASE_MS - 500);
    expect(performance.now() - agreed).toBeLessThan(LEASE_MS + 3_000);
    expect(ends.map(({ how }) => how)).toEqual([
      "ConnectionResetError",
      "ConnectionResetError",
      "PermissionError",
      "PermissionError",
    ]);
    expect([await lab.trustOf("a", "b"), await lab.trustOf("b", "a")]).toEqual(["lease-ended", "lease-ended"]);
    expect((await leaseOf("b")).endedBy).toBe("time");
    expect(await connectError(lab, "a", lab.overlay("b"), 7001)).toBe("EACCES");
    const { drops } = await lab.status("a");
    expect(drops["lease-ended"]).toBeGreaterThanOrEqual(1);
    expect((await lab.tryPilot("a", "ping", "b", "-c", "1")).reply.error.code).toBe("lease_ended");
    await Promise.all([onA.stop(), onB.stop()]);
    // ICMPv6 "reject route", at both ends, and nothing of the peer's after its reset.
    for (const [capture, peer] of [
      [onA, "b"],
      [onB, "a"],
    ] as const) {
      expect((await capture.packets("icmp6 and ip6[40] == 1 and ip6[41] == 6")).length).toBeGreaterThanOrEqual(1);
      const [reset] = await capture.packets(`src host ${lab.overlay(peer)} and ${RESET}`);
      const later = await capture.packets(`src host ${lab.overlay(peer)} and not ${RESET}`);
      expect(later.filter(({ atS }) => atS > reset!.atS)).toEqual([]);
    }
    // It is over for good: restarts do not bring it back.
    for (const host of ["a", "b"]) await lab.stopNode(host, "SIGKILL");
    await lab.startNode("a");
    await lab.startNode("b", { env: clock.env });
    expect([await lab.trustOf("a", "b"), await lab.trustOf("b", "a")]).toEqual(["lease-ended", "lease-ended"]);
    expect(await connectError(lab, "a", lab.overlay("b"), 7001)).toBe("EACCES");
  });

  it("ends with its bytes, at both ends, and none too many pass", async () => {
    await agree([], ["--ports", "tcp/7001", "--max", "5MB"]);
    const bulk = await converse(lab, "bulk", { client: "a", server: "b", port: 7001 });
    const [server, client] = await Promise.all([endOf(bulk.server), endOf(bulk.client)]);
    expect(server.how).toMatch(/ConnectionReset|BrokenPipe/);
    expect(client.how).toBe("ConnectionResetError");
    await waitUntil("both to say so", async () => {
      const states = [await lab.trustOf("a", "b"), await lab.trustOf("b", "a")];
      return states.every((state) => state === "lease-ended");
    });
    expect((await leaseOf("b")).endedBy).toBe("bytes");
    // The interface's own count is the witness: what b's server sent and a's kernel was given.
    const { stdout } = await lab.exec("a", "cat", ["/proc/self/net/dev"]);
    const received = Number(/pilot0:\s*(\d+)/.exec(stdout)?.[1]);
    expect(received).toBeGreaterThan(4_000_000);
    expect(received).toBeLessThanOrEqual(5_000_000);
  });
});
