/** netcheck tells the truth about networks whose truth the lab knows. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, waitUntil } from "../helpers/lab.ts";
import { LabNat, NAT_KINDS } from "../helpers/lab-nat.ts";

const SECOND_ADDRESS = "10.77.0.2";
const STRICT = "address-dependent-or-stricter";
const EXPECTED = {
  "endpoint-independent": { mapping: "endpoint-independent", filtering: "endpoint-independent" },
  "address-dependent": { mapping: "endpoint-independent", filtering: STRICT },
  "port-dependent": { mapping: "endpoint-independent", filtering: STRICT },
  symmetric: { mapping: STRICT, filtering: STRICT },
} as const;

let lab: Lab;
let router: LabNat;

beforeAll(async () => {
  lab = await Lab.create("netcheck", { hosts: ["a", "ra", "b"] });
  const { code } = await lab.exec("net", "ip", ["addr", "add", `${SECOND_ADDRESS}/24`, "dev", "br0"]);
  expect(code).toBe(0);
  const compat = `${lab.network.addressOf(lab.rendezvousHost)}:443`;
  const probe = ["--beacon-probe", `${SECOND_ADDRESS}:9002`];
  const rendezvous = await lab.startRendezvous(["--compat", compat, "--tls-self-signed", ...probe]);
  const fingerprint = /certificate ([0-9a-f]{64})/.exec(rendezvous.stdout)?.[1];
  const pin = { extraArgs: ["--compat-fingerprint", fingerprint!] };
  router = new LabNat(lab, "ra", 1);
  await router.create("port-dependent");
  await router.adopt("a");
  await Promise.all([lab.startNode("a", pin), lab.startNode("b", pin)]);
});

afterAll(() => lab?.close());

describe("netcheck", () => {
  it("finds everything reachable, and no NAT, on a plain network", async () => {
    const found = await lab.pilot("b", "netcheck");
    expect(found).toMatchObject({
      udp: { out: true },
      nat: { present: false, mapping: "none" },
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
  });

  it.each(NAT_KINDS)("tells what a router does that is %s", async (kind) => {
    await router.become(kind);
    const found = await lab.pilot("a", "netcheck");
    expect(found.udp.endpoint).toMatch(new RegExp(`^${router.outside}:\\d+$`));
    expect(found.nat).toMatchObject({ present: true, ...EXPECTED[kind] });
  });

  it("says that UDP is blocked, that TCP gets through, and which of them is used", async () => {
    const drop = 'oifname "eth0" meta l4proto udp drop';
    const rules = `table inet block {\n chain out {\n type filter hook output priority 0\n ${drop}\n }\n}`;
    const { code, stderr } = await lab.exec("b", "nft", ["-f", "-"], { input: rules });
    expect(code, stderr).toBe(0);
    const before = await lab.pilot("b", "netcheck");
    expect(before).toMatchObject({
      udp: { out: false, endpoint: null },
      nat: { present: null, mapping: "unknown" },
      registry: { reachable: true },
      beacon: { reachable: false },
      fallback: { reachable: true },
    });
    // What netcheck found, the daemon acts upon.
    await waitUntil("TCP", async () => (await lab.pilot("b", "status")).beacon.transport === "tcp", 6_000);
    expect((await lab.pilot("b", "netcheck")).transport).toBe("tcp");
    await lab.exec("b", "nft", ["flush", "ruleset"]);
    expect((await lab.pilot("b", "netcheck")).udp.out).toBe(true);
  });
});
