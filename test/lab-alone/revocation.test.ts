/**
 * What a revocation promises, by the timestamps of tcpdump on both interfaces and of the programs themselves: no packet of
 * the peer after the command returned, programs here told within 100 ms, programs over there within a second.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InnerCapture, PROHIBITED, RESET } from "../helpers/inner-capture.ts";
import { Lab } from "../helpers/lab.ts";
import { lateness } from "../helpers/lateness.ts";
import { converse, endOf, programSlackS, timedCall } from "../helpers/watching-programs.ts";

let lab: Lab;

beforeEach(async () => {
  lab = await Lab.create("revoke", { hosts: ["a", "b"] });
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b", { extraArgs: ["--see-programs"] })]);
  await lab.trust("a", "b");
});

afterEach(() => lab?.close());

/** Pings until it is refused; tcpdump tells when. */
const keepPinging = async (from: string, to: string) => {
  const ping = lab.spawn(from, "ping", ["-6", "-n", "-i", "0.05", lab.overlay(to)]);
  await ping.waitForLine(/icmp_seq=3/);
  return ping;
};

describe("trust revoke", () => {
  it("ends every flow within 100 ms here and a second over there, and lets nothing through afterwards", async () => {
    const toB = { client: "a", server: "b" };
    const pairs = [
      await converse(lab, "idle", { ...toB, port: 7002 }),
      await converse(lab, "udp", { ...toB, port: 7003 }),
      await converse(lab, "idle", { client: "b", server: "a", port: 7004 }),
      await converse(lab, "udp", { client: "b", server: "a", port: 7005 }),
      await converse(lab, "bulk", { ...toB, port: 7001 }),
    ];
    const pings = [await keepPinging("a", "b"), await keepPinging("b", "a")];
    const onA = await InnerCapture.start(lab, "a");
    const onB = await InnerCapture.start(lab, "b");

    const { sentS, answeredS, waitedS, reply } = await timedCall(lab, "b", "trust/revoke", { peer: "a" });
    expect(reply).toMatchObject({ peerTold: "acknowledged", cutFlows: 7 });
    const cut = reply.cut.map((flow: { protocol: string; direction: string; localPort: number; remotePort: number }) =>
      [flow.protocol, flow.direction, flow.direction === "in" ? flow.localPort : flow.remotePort].join(" "),
    );
    expect(cut.sort()).toEqual([
      "icmp in ",
      "icmp out ",
      "tcp in 7001",
      "tcp in 7002",
      "tcp out 7004",
      "udp in 7003",
      "udp out 7005",
    ]);
    const programs = reply.cut.map((flow: { program: { name: string } | null }) => flow.program?.name ?? null);
    expect(programs.filter((name: string | null) => name === "python3")).toHaveLength(5);
    expect(reply.elapsedMs).toBeLessThan(100 + 1000 * waitedS);
    expect(reply.toldAfterMs).toBeLessThan(1_000);

    const ends = { a: [] as { how: string; atS: number }[], b: [] as { how: string; atS: number }[] };
    for (const [index, { client, server }] of pairs.entries()) {
      const isToB = index === 0 || index === 1 || index === 4;
      ends[isToB ? "a" : "b"].push(await endOf(client));
      ends[isToB ? "b" : "a"].push(await endOf(server));
    }
    for (const host of ["a", "b"] as const) {
      const hows = ends[host].map(({ how }) => how).sort();
      expect(hows.filter((how) => how === "PermissionError")).toHaveLength(2); // the two UDP sockets: ICMPv6 1/1
      expect(hows.filter((how) => /ConnectionReset|BrokenPipe/.test(how))).toHaveLength(3);
      const limitS = (host === "b" ? 0.1 : 1) + waitedS + programSlackS();
      for (const { how, atS } of ends[host]) expect(atS - sentS, `${how} on ${host}`).toBeLessThan(limitS);
    }
    for (const ping of pings) await ping.waitForLine(/Administratively prohibited/);
    await Promise.all([onA.stop(), onB.stop()]);

    // The wire's own word, by tcpdump: b's programs, then a's.
    for (const [capture, peer, limitS] of [
      [onB, "a", 0.1 + waitedS],
      [onA, "b", 1 + waitedS],
    ] as const) {
      const resets = await capture.packets(`src host ${lab.overlay(peer)} and ${RESET}`);
      const errors = await capture.packets(PROHIBITED);
      const [firstReset, firstError] = [resets[0]!.atS, errors[0]!.atS];
      const toldS = Math.max(firstReset, firstError) - sentS;
      console.log(
        `told by ${peer === "a" ? "b" : "a"} after ${(toldS * 1000).toFixed(1)} ms; b waited ${waitedS * 1000} ms`,
      );
      expect(toldS).toBeLessThan(limitS);
      // Nothing of the peer's from the cut on; the resets are this side's own word.
      const ofPeer = await capture.packets(`src host ${lab.overlay(peer)} and not ${RESET}`);
      expect(ofPeer.length).toBeGreaterThan(10); // the capture saw the conversations
      const cutS = Math.min(firstReset, firstError);
      expect(ofPeer.filter(({ atS }) => atS > cutS)).toEqual([]);
      if (peer === "a") expect(ofPeer.filter(({ atS }) => atS > answeredS)).toEqual([]);
    }
    await lab.waitForTrust("a", "b", "revoked-by-peer", 1_000);
  });

  it("refuses new connections at once on both sides, with a reason", async () => {
    await timedCall(lab, "b", "trust/revoke", { peer: "a" });
    for (const [from, to] of [
      ["a", "b"],
      ["b", "a"],
    ] as const) {
      const capture = await InnerCapture.start(lab, from);
      const lateMs = lateness(lab, from);
      const { stdout } = await lab.exec(from, "python3", ["-c", DIAL, lab.overlay(to)]);
      const lateS = lateMs() / 1_000;
      expect(stdout).toBe("PermissionError\n");
      await capture.stop();
      const [asked] = await capture.packets(`dst host ${lab.overlay(to)} and ip6[6] == 6`);
      const [refused] = await capture.packets(PROHIBITED);
      expect(refused!.atS - asked!.atS).toBeLessThan(0.05 + lateS);
    }
  });
});

const DIAL = `
import socket, sys
try: socket.create_connection((sys.argv[1], 80), 5); print('connected')
except OSError as error: print(type(error).__name__)
`;
