/** trace says how a peer is reached, what was tried, and why not directly: where the lab knows the answer. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LAUNCHER, Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { block, unblock } from "../helpers/lab-block.ts";
import { LabNat } from "../helpers/lab-nat.ts";

let lab: Lab;
let ofB: LabNat;
let pin: readonly string[];

/** a is behind a router that gives every destination another port, b behind one that lets in what answers, c in the open. */
beforeAll(async () => {
  lab = await Lab.create("trace", { hosts: ["a", "b", "c", "ra", "rb"] });
  const compat = ["--compat", `${lab.network.addressOf(lab.rendezvousHost)}:443`, "--tls-self-signed"];
  const { stdout } = await lab.startRendezvous(compat);
  pin = ["--compat-fingerprint", /certificate ([0-9a-f]{64})/.exec(stdout)![1]!];
  const ofA = new LabNat(lab, "ra", 1);
  ofB = new LabNat(lab, "rb", 2);
  await ofA.create("symmetric");
  await ofB.create("port-dependent");
  await ofA.adopt("a");
  await ofB.adopt("b");
  await Promise.all(["a", "b", "c"].map((host) => lab.startNode(host, { extraArgs: pin })));
  await lab.trust("a", "b");
  await lab.trust("a", "c");
});

afterAll(() => lab?.close());

const answered = async (to: string): Promise<void> => {
  const { code } = await lab.exec("a", "ping", ["-6", "-c", "1", "-W", "5", lab.overlay(to)]);
  expect(code).toBe(0);
};

/** The reply, the exit code, and what a person reads. */
async function trace(to: string): Promise<{ code: number; reply: Reply; text: string }> {
  const { code, reply } = await lab.tryPilot("a", "trace", String(lab.node(to).node));
  const words = ["--control", lab.node("a").control, "trace", String(lab.node(to).node)];
  const { stdout } = await lab.exec("a", LAUNCHER, words);
  return { code, reply, text: stdout };
}

const waitForPath = async (to: string, path: string): Promise<void> => {
  const isSo = async (): Promise<boolean> => {
    const { peers } = await lab.peers("a");
    return peers.find((peer: Reply) => peer.node === lab.node(to).node)?.path === path;
  };
  await waitUntil(`a to reach ${to} by ${path}`, isSo, 15_000);
};

describe("trace", () => {
  it("of a peer that is reached directly names the endpoint in use, which was tried and answers", async () => {
    await answered("c");
    await waitForPath("c", "direct");
    const { code, reply, text } = await trace("c");
    expect(code).toBe(0);
    expect(reply).toMatchObject({ path: "direct", answered: true, notDirect: null });
    expect(reply.endpoint.startsWith(`${lab.network.addressOf("c")}:`)).toBe(true);
    const chosen = reply.candidates.filter(({ state }: Reply) => state === "chosen");
    expect(chosen).toEqual([expect.objectContaining({ endpoint: reply.endpoint, origin: "registry" })]);
    expect(chosen[0].tries).toBeGreaterThan(0);
    expect(chosen[0].triedAgoS).toBeLessThan(3);
    expect(chosen[0].rttMs).toBeGreaterThan(0);
    expect(reply.history[0]).toMatchObject({ path: "direct", endpoint: reply.endpoint });
    expect(reply.local).toContain("192.168.1.2");
    expect(text).toMatch(/^direct +yes$/m);
  });

  it("of a peer that only the relay reaches says why, with each endpoint that was tried in vain", async () => {
    await answered("b");
    await waitForPath("b", "relay");
    const { code, reply, text } = await trace("b");
    expect(code).toBe(0);
    expect(reply).toMatchObject({
      path: "relay",
      endpoint: lab.beacon,
      answered: true,
      notDirect: { code: "no-answer", message: expect.stringContaining("two NATs") },
    });
    const outside = reply.candidates.find(({ endpoint }: Reply) => endpoint.startsWith(`${ofB.outside}:`));
    expect(outside).toMatchObject({ origin: "registry", state: "silent", rttMs: null });
    expect(outside.tries).toBeGreaterThan(1);
    expect(text).toMatch(/^path +relay by /m);
    expect(text).toMatch(/^direct +no: no endpoint of the peer answers/m);
  });

  it("of a peer that is reached over TCP says that UDP is blocked", async () => {
    await block(lab, "a", "meta l4proto udp");
    await waitUntil("TCP to the beacon", async () => {
      await lab.tryPilot("a", "ping", "-c", "1", String(lab.node("b").node));
      return (await lab.status("a")).beacon.transport === "tcp";
    });
    await answered("b");
    const { code, reply } = await trace("b");
    expect(code).toBe(0);
    expect(reply).toMatchObject({ path: "tcp", answered: true, notDirect: { code: "udp-blocked" } });
    await unblock(lab, "a");
    await waitUntil("UDP", async () => (await lab.status("a")).beacon.transport === "udp", 15_000);
  });

  it("of a peer that is away says that nothing comes back, at once and after the keys were given up", async () => {
    await answered("c");
    await lab.stopNode("c");
    const soon = await trace("c");
    expect(soon.code).toBe(6);
    expect(soon.reply).toMatchObject({ answered: false });
    expect(soon.text).toMatch(/^answers +no: /m);
    await lab.stopNode("a");
    await lab.startNode("a", { extraArgs: pin });
    const later = await trace("c");
    expect(later.code).toBe(6);
    expect(later.reply).toMatchObject({
      path: "none",
      endpoint: null,
      answered: false,
      notDirect: { code: "no-session" },
    });
    const known = later.reply.candidates.find(({ endpoint }: Reply) => endpoint.startsWith(lab.network.addressOf("c")));
    expect(known).toMatchObject({ origin: "cached", state: "silent" });
    expect(known.tries).toBeGreaterThan(0);
  });
});
