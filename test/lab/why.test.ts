/** `why` with faults put in one after the other: each must be named rightly, and what mends it must mend it. */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ControlClient } from "../../src/control/client.ts";
import type { WhyRequest } from "../../src/control/why-api.ts";
import { Lab, type Reply, waitUntil } from "../helpers/lab.ts";

let lab: Lab;
const policyOf = (host: string) => `${lab.folder}/${host}.policy`;
const setPolicy = async (host: string, text: string) => {
  writeFileSync(policyOf(host), text, { mode: 0o600 });
  await lab.pilot(host, "policy", "reload");
};
const startNode = (host: string, ...args: string[]) =>
  lab.startNode(host, { extraArgs: ["--policy", policyOf(host), ...args] });
const number = (host: string) => String(lab.node(host).node);

/** What the daemon of a host says; straight from its socket, for a program in between takes longer than the answer. */
async function why(host: string, request: WhyRequest): Promise<Reply> {
  const client = new ControlClient(lab.node(host).control);
  const reply = await client.call("why", request, { timeoutMs: 20_000 });
  return { ...reply, found: [reply.stage, reply.side, reply.code].join(" ") };
}
const tcp = (peer: string, port: number): WhyRequest => ({ peer, protocol: "tcp", port });
const tcpFrom = (from: string, port: number): WhyRequest => ({ from, protocol: "tcp", port });
const run = async (host: string, program: string, ...args: string[]) => {
  const { code, stdout, stderr } = await lab.exec(host, program, args);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} on ${host}: ${stderr}`);
  return stdout;
};
const serve = async (host: string, port: number) => {
  const server = lab.spawn(host, "python3", ["-u", "-c", SERVER, lab.overlay(host), String(port)]);
  await server.waitForLine(/listening/);
  return server;
};

const OPEN = "allow out any to trusted\nallow in any from trusted\n";

beforeAll(async () => {
  lab = await Lab.create("why", { hosts: ["a", "b", "c"] });
  for (const host of ["a", "b", "c"]) writeFileSync(policyOf(host), OPEN, { mode: 0o600 });
  await lab.startRendezvous();
  await Promise.all(["a", "b", "c"].map((host) => startNode(host)));
  await lab.trust("a", "b");
});

afterAll(() => lab?.close());

describe("why", () => {
  it("finds nothing in the way of what works, and walks all stages", async () => {
    const server = await serve("b", 7001);
    const found = await why("a", tcp("b", 7001));
    expect(found).toMatchObject({ verdict: "allow", stage: null, side: null, code: "allowed", fix: null });
    expect(found.stages.map(({ stage, state }: Reply) => `${stage} ${state}`)).toEqual([
      ...["name ok", "address ok", "local-rule ok", "consent ok", "lease ok", "budget ok"],
      ...["path ok", "mtu ok", "remote-rule ok", "listener ok"],
    ]);
    expect(found.rule).toEqual({ file: policyOf("a"), line: 1, text: "allow out any to trusted" });
    expect(await why("a", { peer: "b", protocol: "icmp" })).toMatchObject({ verdict: "allow" });
    await server.stop();
  });

  it("names a wrong name", async () => {
    expect(await why("a", tcp("nobody", 1))).toMatchObject({ found: "name local unknown_peer" });
    expect(await why("a", tcp("a", 1))).toMatchObject({ found: "name local own_address" });
  });

  it("names routes and addresses of this host that lead elsewhere", async () => {
    await run("a", "ip", "-6", "route", "del", "fd50:494c:4f54::/48", "dev", "pilot0");
    expect(await why("a", tcp("b", 7001))).toMatchObject({ found: "address local no_route" });
    await run("a", "ip", "-6", "route", "add", "fd50:494c:4f54::/48", "dev", "pilot0");
    await run("a", "ip", "-6", "addr", "del", `${lab.overlay("a")}/128`, "dev", "pilot0");
    expect(await why("a", tcp("b", 7001))).toMatchObject({ found: "address local no_address" });
    await run("a", "ip", "-6", "addr", "add", `${lab.overlay("a")}/128`, "dev", "pilot0", "nodad");
    const inNetwork = `5:0005.0000.${lab.node("b").node.toString(16).padStart(4, "0")}`;
    expect(await why("a", tcp(inNetwork, 1))).toMatchObject({ found: "address between not_member" });
  });

  it("names the rule here, its line, and the line that mends it", async () => {
    await setPolicy("a", "# first\ndeny out tcp 7002 to b\nallow out tcp 7000-7999 to trusted\n");
    const denied = await why("a", tcp("b", 7002));
    expect(denied).toMatchObject({ found: "local-rule local policy_denied" });
    expect(denied.rule).toEqual({ file: policyOf("a"), line: 2, text: "deny out tcp 7002 to b" });
    expect(denied.fix).toBe(`Put before ${policyOf("a")}:2: allow out tcp 7002 to b`);
    const missing = await why("a", { peer: "b", protocol: "udp", port: 53 });
    expect(missing).toMatchObject({
      found: "local-rule local policy_no_match",
      fix: "Add a line to the policy: allow out udp 53 to b",
    });
    await setPolicy("a", `${missing.fix.split(": ")[1]}\n`);
    expect((await why("a", { peer: "b", protocol: "udp", port: 53 })).stage).not.toBe("local-rule");
    await lab.pilot("a", "lockdown");
    expect(await why("a", { peer: "b", protocol: "udp", port: 53 })).toMatchObject({
      found: "local-rule local locked_down",
      fix: "pilot-tun lockdown --lift",
    });
    await lab.pilot("a", "lockdown", "--lift");
    await setPolicy("a", "allow out tcp 7003 to b flows 1/h\nallow out any to trusted\nallow in any from trusted\n");
    const server = await serve("b", 7003);
    await run("a", "python3", "-c", CONNECT, lab.overlay("b"), "7003");
    expect(await why("a", tcp("b", 7003))).toMatchObject({
      found: "budget local flows_spent",
      rule: { line: 1 },
    });
    await server.stop();
    await setPolicy("a", OPEN);
  });

  it("names whose consent is missing", async () => {
    expect(await why("a", tcp(number("c"), 1))).toMatchObject({ found: "consent local not_trusted" });
    await lab.pilot("a", "trust", "ask", number("c"));
    expect(await why("a", tcp(number("c"), 1))).toMatchObject({ found: "consent remote not_answered" });
    await waitUntil("c to hear it", async () => (await lab.ask("c", "trust/pending", {})).requests.length === 1);
    const waiting = await why("c", tcp("a", 1));
    expect(waiting).toMatchObject({ found: "consent local not_approved", fix: "pilot-tun trust approve a" });
    await lab.pilot("c", ...waiting.fix.split(" ").slice(1));
    await lab.waitForTrust("a", "c", "mutual");
    await lab.pilot("a", "trust", "revoke", "c");
    expect(await why("a", tcp("c", 1))).toMatchObject({
      found: "consent local revoked",
      fix: "pilot-tun trust ask c",
    });
    await lab.waitForTrust("c", "a", "revoked-by-peer");
    expect(await why("c", tcp("a", 1))).toMatchObject({ found: "consent remote revoked_by_peer" });
  });

  it("names the far side's rule without telling more of it, and a port where nobody listens", async () => {
    await setPolicy("b", "allow in tcp 7004 from a\nallow out tcp 7100 to a\n");
    const refused = await why("a", tcp("b", 22));
    expect(refused).toMatchObject({
      found: "remote-rule remote remote_refused",
      rule: { file: policyOf("a") },
    });
    expect(JSON.stringify(refused)).not.toContain(policyOf("b"));
    expect(await why("a", tcp("b", 7004))).toMatchObject({ found: "listener remote no_listener" });
    const server = await serve("b", 7004);
    expect(await why("a", tcp("b", 7004))).toMatchObject({ verdict: "allow" });
    await server.stop();
    // There, where the rule may be seen.
    const there = await why("b", tcpFrom("a", 22));
    expect(there).toMatchObject({
      found: "local-rule local policy_no_match",
      direction: "in",
      fix: "Add a line to the policy: allow in tcp 22 from a",
    });
  });

  it("says whether a peer would reach this node", async () => {
    expect(await why("a", tcpFrom("b", 7100))).toMatchObject({ found: "listener local no_listener" });
    const server = await serve("a", 7100);
    expect(await why("a", { ...tcpFrom("b", 7_100), peer: "a" })).toMatchObject({ verdict: "allow", direction: "in" });
    expect(await why("a", tcpFrom("b", 7101))).toMatchObject({ found: "remote-rule remote remote_refused" });
    expect((await lab.tryPilot("a", "why", "c", "tcp/7100", "--from", "b")).reply.error.code).toBe("not_this_node");
    await server.stop();
    await setPolicy("b", OPEN);
  });

  it("names what a lease does not grant, and its end", async () => {
    await lab.pilot("b", "trust", "approve", "a", "--ports", "tcp/7004", "--for", "1h");
    await waitUntil("a to hear it", async () =>
      (await lab.ask("a", "trust/ls", {})).entries.some((entry: Reply) => entry.lease !== null),
    );
    expect(await why("a", tcp("b", 22))).toMatchObject({ found: "lease remote lease_port" });
    const here = await why("b", tcpFrom("a", 22));
    expect(here).toMatchObject({
      found: "lease local lease_port",
      fix: "pilot-tun trust approve a --ports tcp/7004,tcp/22",
    });
    await lab.pilot("b", ...here.fix.split(" ").slice(1));
    await waitUntil("a to hear it", async () => (await why("a", tcp("b", 22))).stage === "listener");
    await lab.pilot("b", "trust", "approve", "a", "--for", "1s");
    await lab.waitForTrust("a", "b", "lease-ended", 10_000);
    expect(await why("a", tcp("b", 7004))).toMatchObject({
      found: "lease local lease_ended",
      fix: "pilot-tun trust ask b",
    });
    await lab.trust("a", "b");
  });

  it("names a path that carries only small frames", async () => {
    // Between the hosts: nobody is told that long frames do not fit.
    await run("net", "nft", "add table netdev t");
    await run("net", "nft", "add chain netdev t in { type filter hook ingress device to-a priority 0; }");
    await run("net", "nft", "add rule netdev t in ip length > 500 drop");
    await run("net", "nft", "add rule netdev t in ip6 length > 460 drop");
    expect(await why("a", tcp("b", 7004))).toMatchObject({ found: "mtu between mtu_too_small" });
    await run("net", "nft", "delete table netdev t");
  });

  it("names blocked UDP, and a peer that is off", async () => {
    await run("a", "nft", "add table inet t");
    await run("a", "nft", "add chain inet t out { type filter hook output priority 0; }");
    await run("a", "nft", "add rule inet t out oifname eth0 meta l4proto udp drop");
    expect(await why("a", tcp("b", 7004))).toMatchObject({ found: "path local udp_blocked" });
    await run("a", "nft", "delete table inet t");
    await lab.stopNode("b", "SIGKILL");
    expect(await why("a", tcp("b", 7004))).toMatchObject({ found: "path remote peer_silent" });
    await lab.rendezvous.stop();
    await waitUntil("a to notice", async () => (await lab.status("a")).registry.state !== "connected");
    expect((await why("a", tcp("b", 7004))).found).toMatch(/path local offline|path remote peer_silent/);
    await lab.startRendezvous();
  });

  it("says what cannot be known of a plain agent", async () => {
    await startNode("b", "--plain-only");
    await waitUntil(
      "a to see that b is less than it was",
      async () => {
        await lab.tryPilot("a", "ping", "b", "-c", "1");
        return (await why("a", tcp("b", 7004))).found === "path remote session_downgraded";
      },
      40_000,
    );
    await lab.trustAnew("a", "b");
    await waitUntil(
      "a to know what b is",
      async () => {
        await lab.tryPilot("a", "ping", "b", "-c", "1");
        return (await lab.peers("a")).peers.find((peer: Reply) => peer.hostname === "b").kind === "plain";
      },
      15_000,
    );
    const found = await why("a", tcp("b", 7004));
    expect(found).toMatchObject({ verdict: "allow", stage: null });
    const states = Object.fromEntries(found.stages.map(({ stage, state }: Reply) => [stage, state]));
    expect(states).toMatchObject({
      path: "ok",
      mtu: "unknowable",
      "remote-rule": "unknowable",
      listener: "unknowable",
    });
  });

  it("names a key that is not the pinned one", async () => {
    await lab.stopNode("a");
    const file = `${lab.node("a").stateDir}/trust.json`;
    const stored = JSON.parse(readFileSync(file, "utf8"));
    const [ofB, ofC] = ["b", "c"].map((host) =>
      stored.records.find((record: Reply) => record.node === lab.node(host).node),
    );
    ofB.public_key = ofC.public_key;
    writeFileSync(file, JSON.stringify(stored), { mode: 0o600 });
    await startNode("a");
    await waitUntil("a to see it", async () => (await why("a", tcp("b", 1))).code === "key_changed", 15_000);
    expect(await why("a", tcp("b", 1))).toMatchObject({ found: "address remote key_changed" });
  });
});

it("is a command whose exit code tells what kind of thing stands in the way", async () => {
  expect((await lab.tryPilot("c", "why", "nobody", "tcp/1")).code).toBe(6);
  expect((await lab.tryPilot("c", "why", number("a"), "tcp/1")).code).toBe(5);
  await lab.pilot("c", "lockdown");
  expect((await lab.tryPilot("c", "why", number("a"), "tcp/1")).code).toBe(4);
  await lab.pilot("c", "lockdown", "--lift");
});

describe("a stranger's why", () => {
  it("says of a node that exists what it says of one that does not, as fast", async () => {
    await lab.stopNode("c");
    await lab.startNode("c", { extraArgs: ["--state", `${lab.folder}/stranger`] });
    const looks = async (peer: string) => {
      const began = performance.now();
      const reply = await why("c", tcp(peer, 80));
      const tookMs = performance.now() - began;
      const { pilot, address, node } = reply.peer;
      let text = JSON.stringify(reply);
      for (const name of [pilot, address, `"node":${node}`]) text = text.replaceAll(name, "PEER");
      return { tookMs, text };
    };
    const real = [];
    const invented = [];
    for (let round = 0; round < 10; round++) {
      real.push(await looks(number("a")));
      invented.push(await looks("1234"));
    }
    expect(new Set([...real, ...invented].map(({ text }) => text)).size).toBe(1);
    const least = (list: readonly { tookMs: number }[]) => Math.min(...list.map(({ tookMs }) => tookMs));
    expect(Math.abs(least(real) - least(invented))).toBeLessThan(50);
    // Having asked makes no difference, as long as nobody answers.
    for (const peer of [number("a"), "1234"]) await lab.pilot("c", "trust", "ask", peer);
    const asked = [await looks(number("a")), await looks("1234")];
    expect(asked[0]!.text).toBe(asked[1]!.text);
    expect(asked[0]!.text).toContain("not_answered");
    const [byName, byNoName] = [await why("c", tcp("a", 80)), await why("c", tcp("x", 80))];
    expect(byName.found).toBe("name local unknown_peer");
    expect(JSON.stringify(byName).replaceAll(" a,", " x,")).toBe(JSON.stringify(byNoName));
  });
});

const SERVER = `
import socket, sys
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(); print('listening')
kept = []
while True: kept.append(s.accept()[0])
`;
const CONNECT = `
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
`;
