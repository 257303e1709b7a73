/** A lockdown with traffic running in both directions: what it stops, what it spares, and how it ends. */
import { afterEach, beforeEach, expect, it } from "vitest";
import { connectError } from "../helpers/connect-error.ts";
import { InnerCapture, RESET } from "../helpers/inner-capture.ts";
import { Lab, waitUntil } from "../helpers/lab.ts";
import { converse, endOf, programSlackS, timedCall } from "../helpers/watching-programs.ts";

let lab: Lab;

beforeEach(async () => {
  lab = await Lab.create("lockdown", { hosts: ["a", "b", "c"] });
  await lab.startRendezvous();
  await Promise.all(["a", "b", "c"].map((host) => lab.startNode(host)));
  for (const peer of ["b", "c"]) await lab.trust("a", peer);
});

afterEach(() => lab?.close());

const ping = async (from: string, to: string) =>
  (await lab.exec(from, "ping", ["-6", "-n", "-c", "1", "-W", "1", lab.overlay(to)])).stdout;
const packetsOf = async (capture: InnerCapture, host: string, afterS: number) =>
  (await capture.packets(`src host ${lab.overlay(host)} and not ${RESET}`)).filter(({ atS }) => atS > afterS);

it("stops everything at once but for whom it spares, holds through a kill of the daemon, and ends by itself", async () => {
  const cut = [
    await converse(lab, "bulk", { client: "a", server: "b", port: 7_001 }),
    await converse(lab, "idle", { client: "b", server: "a", port: 7_002 }),
    await converse(lab, "udp", { client: "a", server: "b", port: 7_003 }),
  ];
  const spared = await converse(lab, "idle", { client: "c", server: "a", port: 7_004 });
  const pings = lab.spawn("b", "ping", ["-6", "-n", "-i", "0.05", lab.overlay("a")]);
  const sparedPings = lab.spawn("c", "ping", ["-6", "-n", "-D", "-i", "0.1", lab.overlay("a")]);
  await Promise.all([pings, sparedPings].map((one) => one.waitForLine(/icmp_seq=3 /)));
  const onA = await InnerCapture.start(lab, "a");

  const request = { on: true, except: ["c"], forMs: 12_000 };
  const { sentS, answeredS, waitedS, reply } = await timedCall(lab, "a", "lockdown", request);
  expect(reply.lockdown.except).toMatchObject([{ hostname: "c" }]);
  expect(reply.cutFlows).toBe(4);
  expect(new Set(reply.cut.map((flow: { peer: { hostname: string } }) => flow.peer.hostname))).toEqual(new Set(["b"]));
  const [bulk, idle, udp] = [cut[0]!.client, cut[1]!.server, cut[2]!.client].map((program) => endOf(program));
  for (const [end, how] of [
    [await bulk!, "ConnectionResetError"],
    [await idle!, "ConnectionResetError"],
    [await udp!, "PermissionError"],
  ] as const) {
    expect(end.how).toBe(how);
    expect(end.atS - sentS).toBeLessThan(0.1 + waitedS + programSlackS());
  }
  // New flows are refused at once, in both directions; those of whom it spares go on.
  expect(await connectError(lab, "a", lab.overlay("b"), 7_001)).toBe("EACCES");
  expect(await ping("b", "a")).toContain("0 received");
  expect(await ping("a", "c")).toContain("1 received");
  expect(spared.server.stdout).not.toContain("ended");

  await lab.stopNode("a", "SIGKILL");
  await onA.stop();
  await lab.startNode("a");
  const afterRestart = await InnerCapture.start(lab, "a");
  const shown = (await lab.pilot("a", "policy", "show")).lockdown;
  expect(shown).toMatchObject({ except: [{ hostname: "c" }] });
  expect(shown.endsInS).toBeLessThan(12);
  expect(await connectError(lab, "a", lab.overlay("b"), 7_001)).toBe("EACCES");
  await waitUntil("c to be reached again", async () => (await ping("a", "c")).includes("1 received"));

  await waitUntil("its end", async () => (await ping("a", "b")).includes("1 received"), 12_000);
  const endedS = Date.now() / 1_000;
  expect(endedS - sentS).toBeGreaterThan(12);
  expect((await lab.pilot("a", "policy", "show")).lockdown).toBeNull();
  expect(await ping("b", "a")).toContain("1 received");

  // tcpdump's word: from the answer on, to the end of the lockdown, nothing of b reached a; of c much did.
  await afterRestart.stop();
  expect(await packetsOf(onA, "b", answeredS)).toEqual([]);
  expect((await packetsOf(onA, "c", answeredS)).length).toBeGreaterThan(3);
  const early = (await packetsOf(afterRestart, "b", 0)).filter(({ atS }) => atS < sentS + 12);
  expect(early).toEqual([]);
});

it("is lifted by a command, also after a restart, and is shown by why", async () => {
  await lab.pilot("a", "lockdown");
  await lab.stopNode("a");
  await lab.startNode("a");
  expect(await ping("a", "b")).toContain("Administratively prohibited");
  expect((await lab.tryPilot("a", "why", "b", "icmp")).reply).toMatchObject({
    code: "locked_down",
    fix: "pilot-tun lockdown --lift",
  });
  await lab.pilot("a", "lockdown", "--lift");
  await waitUntil("packets to pass", async () => (await ping("a", "b")).includes("1 received"));
  expect(await ping("b", "a")).toContain("1 received");
  await lab.stopNode("a");
  await lab.startNode("a");
  await waitUntil("packets to pass after a restart", async () => (await ping("a", "b")).includes("1 received"));
});
