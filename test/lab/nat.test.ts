import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, waitUntil } from "../helpers/lab.ts";
import { BEHAVIOUR, expectedPath, LabNat, NAT_KINDS, type NatKind, probeNat } from "../helpers/lab-nat.ts";
import { lateness } from "../helpers/lateness.ts";

const SIDES = ["a", "b"] as const;
const SHORT: Readonly<Record<NatKind, string>> = {
  "endpoint-independent": "ei",
  "address-dependent": "ad",
  "port-dependent": "pd",
  symmetric: "sy",
};
const host = (side: "a" | "b", kind: NatKind): string => `${side}${SHORT[kind]}`;
const PAIRS = NAT_KINDS.flatMap((left) => NAT_KINDS.map((right) => [left, right] as const));

describe("hosts behind routers of every kind", () => {
  let lab: Lab;
  const routers = new Map<string, LabNat>();
  const hosts = SIDES.flatMap((side) => NAT_KINDS.map((kind) => host(side, kind)));
  /** Key: the pair. Bound: the sixteen of them. */
  const outcome = new Map<string, string>();

  beforeAll(async () => {
    lab = await Lab.create("nat", { hosts: [...hosts, ...hosts.map((name) => `r${name}`), "s"] });
    await lab.startRendezvous();
    let subnet = 1;
    for (const side of SIDES) {
      for (const kind of NAT_KINDS) {
        const router = new LabNat(lab, `r${host(side, kind)}`, subnet++);
        await router.create(kind);
        await router.adopt(host(side, kind));
        routers.set(host(side, kind), router);
      }
    }
  });
  afterAll(() => lab?.close());

  it.each(NAT_KINDS)("the lab's %s router behaves as its name says", async (kind) => {
    expect(await probeNat(lab, host("a", kind), "s")).toEqual(BEHAVIOUR[kind]);
  });

  it("all sixteen pairs end in direct or relay, as theory says", async () => {
    for (const router of routers.values()) await router.forget();
    await Promise.all(hosts.map((name) => lab.startNode(name)));
    for (const left of NAT_KINDS) {
      await Promise.all(NAT_KINDS.map((right) => lab.trust(host("a", left), host("b", right))));
    }
    const pathOf = async (from: string, to: string): Promise<string> => {
      const { peers } = await lab.peers(from);
      return peers.find((peer: { node: number }) => peer.node === lab.node(to).node)?.path ?? "none";
    };
    const wrong: string[] = [];
    for (const [left, right] of PAIRS) {
      const [a, b] = [host("a", left), host("b", right)];
      const expected = expectedPath(left, right);
      await lab.pilot(a, "ping", "-c", "1", String(lab.node(b).node));
      let seen = ["", ""];
      const isSo = async (): Promise<boolean> => {
        seen = await Promise.all([pathOf(a, b), pathOf(b, a)]);
        return seen.every((path) => path === expected);
      };
      await waitUntil(`${a}-${b}`, isSo, 12_000).catch(() => wrong.push(`${left} × ${right}: ${seen.join("/")}`));
      outcome.set(`${left} ${right}`, seen[0] === seen[1] ? seen[0]! : seen.join("/"));
    }
    console.log(table(outcome));
    expect(wrong).toEqual([]);
  });

  it.each(NAT_KINDS)(
    "behind two %s ones the first ping is answered within 5 s of a cold start, and within 1 s when both are registered",
    async (kind) => {
      const [a, b] = [host("a", kind), host("b", kind)];
      const restart = async (): Promise<void> => {
        for (const name of [a, b]) {
          await lab.stopNode(name, "SIGKILL");
          await routers.get(name)!.forget();
        }
      };
      const firstAnswerSince = async (startedAt: number): Promise<number> => {
        const { code } = await lab.exec(a, "ping", ["-6", "-q", "-c", "1", "-W", "5", lab.overlay(b)]);
        expect(code).toBe(0);
        return performance.now() - startedAt;
      };
      const coldLateMs = lateness(lab, a, b);
      await restart();
      const cold = performance.now();
      await Promise.all([lab.startNode(a), lab.startNode(b)]);
      const coldMs = await firstAnswerSince(cold);
      const coldWithinMs = 5_000 + coldLateMs();
      await restart();
      await Promise.all([lab.startNode(a), lab.startNode(b)]);
      for (const name of [a, b]) {
        const isRegistered = async () => (await lab.status(name)).registry.state === "connected";
        await waitUntil(`${name} to be registered`, isRegistered);
      }
      const warmLateMs = lateness(lab, a, b);
      const warmMs = await firstAnswerSince(performance.now());
      const warmWithinMs = 1_000 + warmLateMs();
      console.log(
        `${kind}: first answer ${coldMs.toFixed(0)} ms after both starts, ${warmMs.toFixed(0)} ms when registered`,
      );
      expect(coldMs).toBeLessThan(coldWithinMs);
      expect(warmMs).toBeLessThan(warmWithinMs);
    },
  );
});

function table(outcome: ReadonlyMap<string, string>): string {
  const width = Math.max(...NAT_KINDS.map((kind) => kind.length)) + 2;
  const row = (cells: readonly string[]): string =>
    cells
      .map((cell) => cell.padEnd(width))
      .join("")
      .trimEnd();
  const rows = NAT_KINDS.map((left) =>
    row([left, ...NAT_KINDS.map((right) => outcome.get(`${left} ${right}`) ?? "?")]),
  );
  return [row(["a \\ b", ...NAT_KINDS]), ...rows].join("\n");
}
