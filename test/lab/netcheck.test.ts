/** netcheck tells the truth about networks whose truth the lab knows: each of its answers, both ways. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LAUNCHER, Lab, type Reply, waitUntil } from "../helpers/lab.ts";
import { block, unblock } from "../helpers/lab-block.ts";
import { LabClock } from "../helpers/lab-clock.ts";
import { LabNat, NAT_KINDS } from "../helpers/lab-nat.ts";

const SECOND_ADDRESS = "10.77.0.2";
const STRICTER = "address-dependent-or-stricter";
const EITHER = "endpoint-independent-or-address-dependent";
/** With a port beside the beacon's own and one on another address. */
const EXACT = {
  "endpoint-independent": { mapping: "endpoint-independent", filtering: "endpoint-independent" },
  "address-dependent": { mapping: "endpoint-independent", filtering: "address-dependent" },
  "port-dependent": { mapping: "endpoint-independent", filtering: "address-and-port-dependent" },
  symmetric: { mapping: "address-and-port-dependent", filtering: "address-and-port-dependent" },
} as const;

let lab: Lab;
let router: LabNat;
/** Of the rendezvous. */
let clock: LabClock;
let compat: readonly string[];
let pin: string;

/** Again: with the same state and other options. */
async function startRendezvous(...options: readonly string[]): Promise<string> {
  const { stdout } = await lab.startRendezvous([...compat, ...options], { env: clock.env });
  return /certificate ([0-9a-f]{64})/.exec(stdout)![1]!;
}

beforeAll(async () => {
  lab = await Lab.create("netcheck", { hosts: ["a", "ra", "b"] });
  expect((await lab.exec("net", "ip", ["addr", "add", `${SECOND_ADDRESS}/24`, "dev", "br0"])).code).toBe(0);
  clock = new LabClock(`${lab.folder}/clock`);
  compat = ["--compat", `${lab.network.addressOf(lab.rendezvousHost)}:443`, "--tls-self-signed"];
  const beside = lab.network.addressOf(lab.rendezvousHost);
  pin = await startRendezvous("--beacon-probe", `${beside}:9002,${SECOND_ADDRESS}:9002`);
  router = new LabNat(lab, "ra", 1);
  await router.create("port-dependent");
  await router.adopt("a");
  const options = { extraArgs: ["--compat-fingerprint", pin] };
  await Promise.all([lab.startNode("a", options), lab.startNode("b", options)]);
});

afterAll(() => lab?.close());

const netcheck = (host: string): Promise<Reply> => lab.pilot(host, "netcheck");

describe("netcheck on a plain network", () => {
  it("finds everything reachable, no NAT, whole Ethernet frames, and a clock that agrees", async () => {
    const found = await netcheck("b");
    expect(found).toMatchObject({
      udp: { out: true },
      nat: { present: false, mapping: "none" },
      mtu: { toBeacon: 1500 },
      registry: { reachable: true, error: null },
      beacon: { reachable: true },
      fallback: { reachable: true, proxy: null },
      transport: "udp",
    });
    expect(found.udp.endpoint).toMatch(new RegExp(`^${lab.network.addressOf("b")}:\\d+$`));
    for (const { latencyMs } of [found.registry, found.beacon, found.fallback]) {
      expect(latencyMs).toBeGreaterThan(0);
      expect(latencyMs).toBeLessThan(1_000);
    }
    expect(Math.abs(found.clockSkewMs)).toBeLessThan(1_500);
  });

  it.each([90, -7_200, 0])("says how far a registry's clock is off that is %d s ahead", async (aheadS) => {
    clock.set(aheadS);
    const { clockSkewMs } = await netcheck("b");
    expect(Math.abs(clockSkewMs + 1000 * aheadS)).toBeLessThan(1_500);
    const { stdout } = await lab.exec("b", LAUNCHER, ["--control", lab.node("b").control, "netcheck"]);
    const words =
      aheadS === 0 ? "agrees with the registry's" : `${Math.abs(aheadS)} s ${aheadS > 0 ? "behind" : "ahead of"}`;
    expect(stdout).toMatch(new RegExp(`^clock +.*${words.replace(/\d+/, "\\d+")}`, "m"));
  });
});

describe("netcheck behind a router", () => {
  it.each(NAT_KINDS)("says in RFC 4787's words what a %s one does", async (kind) => {
    await router.become(kind);
    const found = await netcheck("a");
    expect(found.udp.endpoint).toMatch(new RegExp(`^${router.outside}:\\d+$`));
    expect(found.nat).toEqual({ present: true, hairpin: false, ...EXACT[kind] });
    expect(found.mtu).toEqual({ toBeacon: 1500 });
  });

  it.each([1400, 1280, 576])("measures what a path of %d bytes carries to the beacon", async (mtuBytes) => {
    const set = async (bytes: number) => {
      expect((await lab.exec("ra", "ip", ["link", "set", "eth0", "mtu", String(bytes)])).code).toBe(0);
    };
    await set(mtuBytes);
    const found = await netcheck("a");
    await set(1500);
    expect(found.mtu).toEqual({ toBeacon: mtuBytes });
  });

  it("says that it hairpins, of one that does", async () => {
    await router.become("endpoint-independent", { hairpins: true });
    expect((await netcheck("a")).nat).toEqual({ present: true, hairpin: true, ...EXACT["endpoint-independent"] });
    await router.become("endpoint-independent");
    expect((await netcheck("a")).nat.hairpin).toBe(false);
  });

  it("says how much it can tell with a beacon that has fewer ports", async () => {
    await router.become("address-dependent");
    const again = async (...options: string[]) => {
      await lab.rendezvous.stop();
      await startRendezvous(...options);
      return (await netcheck("a")).nat;
    };
    const beside = `${lab.network.addressOf(lab.rendezvousHost)}:9002`;
    expect(await again("--beacon-probe", beside)).toMatchObject({ mapping: EITHER, filtering: EITHER });
    const elsewhere = { mapping: "endpoint-independent", filtering: STRICTER };
    expect(await again("--beacon-probe", `${SECOND_ADDRESS}:9002`)).toMatchObject(elsewhere);
    expect(await again()).toEqual({ present: true, hairpin: false, mapping: "unknown", filtering: "unknown" });
  });
});

describe("netcheck where something is closed", () => {
  it("says that UDP is blocked, that TCP gets through, and which of them is used", async () => {
    await block(lab, "b", "meta l4proto udp");
    expect(await netcheck("b")).toMatchObject({
      udp: { out: false, endpoint: null },
      nat: { present: null, mapping: "unknown" },
      mtu: { toBeacon: null },
      registry: { reachable: true },
      beacon: { reachable: false, error: expect.stringContaining("no answer") },
      fallback: { reachable: true },
    });
    // What netcheck found, the daemon acts upon.
    await waitUntil("TCP", async () => (await lab.status("b")).beacon.transport === "tcp");
    expect((await netcheck("b")).transport).toBe("tcp");
    await unblock(lab, "b");
    expect((await netcheck("b")).udp.out).toBe(true);
    await waitUntil("UDP", async () => (await lab.status("b")).beacon.transport === "udp");
  });

  it("says that the registry is not reached, and why, while the beacon is", async () => {
    await block(lab, "b", "tcp dport 9000", "reject with tcp reset");
    expect(await netcheck("b")).toMatchObject({
      udp: { out: true },
      mtu: { toBeacon: 1500 },
      registry: { reachable: false, latencyMs: null, error: expect.stringContaining("ECONNREFUSED") },
      beacon: { reachable: true, error: null },
    });
    await unblock(lab, "b");
  });

  it("says whether there is a way around blocked UDP, and if not why: closed, certificates, switched off", async () => {
    await block(lab, "b", "tcp dport 443", "reject with tcp reset");
    const refused = { reachable: false, latencyMs: null, error: expect.stringContaining("ECONNREFUSED") };
    expect((await netcheck("b")).fallback).toMatchObject(refused);
    await unblock(lab, "b");
    await lab.stopNode("b");
    await lab.startNode("b", { extraArgs: ["--compat-fingerprint", "0".repeat(64)] });
    const pinned = { reachable: false, error: expect.stringContaining("not the pinned one") };
    expect((await netcheck("b")).fallback).toMatchObject(pinned);
    await lab.stopNode("b");
    await lab.startNode("b");
    expect((await netcheck("b")).fallback).toMatchObject({
      reachable: false,
      error: expect.stringMatching(/self-signed/),
    });
    await lab.stopNode("b");
    // This system's authorities, of which the lab makes one.
    await lab.startNode("b", { env: { SSL_CERT_FILE: `${lab.folder}/rendezvous/tls-cert.pem` } });
    expect((await netcheck("b")).fallback).toMatchObject({ reachable: true, error: null });
    await lab.stopNode("b");
    await lab.startNode("b", { extraArgs: ["--no-compat"] });
    const none = { address: null, reachable: false, error: expect.stringContaining("--no-compat") };
    expect((await netcheck("b")).fallback).toMatchObject(none);
  });

  it("says all that is not reached when the rendezvous is gone, within twelve seconds", async () => {
    lab.rendezvous.kill("SIGKILL");
    await lab.rendezvous.ended;
    const startedAt = performance.now();
    const found = await netcheck("b");
    expect(performance.now() - startedAt).toBeLessThan(12_000);
    expect(found).toMatchObject({
      udp: { out: false },
      mtu: { toBeacon: null },
      registry: { reachable: false },
      beacon: { reachable: false },
    });
  });
});
