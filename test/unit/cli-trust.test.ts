/** The commands about trust: what they ask, what they print. */
import { describe, expect, it } from "vitest";
import type { TrustBackend } from "../../src/control/trust-api.ts";
import { BOB, fakeBackend, fakeTrust, LEASE, runCli } from "../helpers/control-fixture.ts";

async function answerOf(argv: readonly string[], replace: Partial<TrustBackend> = {}): Promise<string> {
  const { code, out, err } = await runCli(["trust", ...argv], fakeBackend({ trust: fakeTrust(replace) }));
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return out;
}

function lines(...text: readonly string[]): string {
  return text.join("\n") + "\n";
}

const never = new AbortController().signal;

describe("trust ask", () => {
  it("says how the question went out", async () => {
    expect(await answerOf(["ask", "bob"])).toBe(
      "asked bob.pilot through the registry; trust is asked until it answers\n",
    );
    const ask: TrustBackend["ask"] = async () => ({
      ...{ peer: BOB, trust: "mutual", lease: null, delivered: "direct" },
      waits: false,
    });
    expect(await answerOf(["ask", "bob"], { ask })).toBe("bob.pilot had consented already: trust is mutual\n");
    const again: TrustBackend["ask"] = async () => ({
      ...{ peer: BOB, trust: "mutual", lease: LEASE, delivered: "direct" },
      waits: true,
    });
    expect(await answerOf(["ask", "bob", "--ports", "tcp/22"], { ask: again })).toBe(
      lines(
        "asked bob.pilot directly for other limits; until it answers those hold that there are",
        "lease: in tcp/443 udp/53, out nothing, 1 h 59 min left, 45.8 MiB left",
      ),
    );
  });

  it("hands over the purpose, the ports, the time and the bytes", async () => {
    const seen: unknown[] = [];
    const ask: TrustBackend["ask"] = async (request) => {
      seen.push(request);
      return fakeTrust().ask(request, never);
    };
    await answerOf(["ask", "bob", "--reason", "nightly backup"], { ask });
    const limits = ["--ports", "tcp/443, udp/53", "--for", "2h", "--max", "50MB"];
    await answerOf(["ask", "bob", ...limits, "--purpose", "invoice check"], { ask });
    expect(seen).toEqual([
      { peer: "bob", reason: "nightly backup" },
      { peer: "bob", ports: "tcp/443,udp/53", forMs: 7_200_000, maxBytes: 50_000_000, reason: "invoice check" },
    ]);
  });

  it.each([
    ["--ports", "tcp/70000"],
    ["--ports", "http"],
    ["--for", "2"],
    ["--for", "9999d"],
    ["--max", "50"],
    ["--max", "1mb"],
  ])("refuses %s %s", async (...option) => {
    for (const verb of ["ask", "approve"]) {
      const { code, err } = await runCli(["trust", verb, "bob", ...option]);
      expect(code).toBe(2);
      expect(err).toContain(`error: ${option[0]} "${option[1]}" is not`);
    }
  });
});

describe("trust pending", () => {
  it("lists who asked and why", async () => {
    expect(await answerOf(["pending"])).toBe(
      lines(
        "PEER       ADDRESS            ASKED     KEY         FOR                                  REASON",
        "bob.pilot  fd50:494c:4f54::7  20 s ago  SHA256:abc  tcp/443 udp/53, 2 h 0 min, 47.7 MiB  nightly backup",
      ),
    );
    expect(await answerOf(["pending"], { pending: async () => ({ requests: [] }) })).toBe("(none)\n");
  });
});

describe("trust approve", () => {
  it("hands over the limits", async () => {
    let seen: unknown;
    const approve: TrustBackend["approve"] = async (request) => {
      seen = request;
      return fakeTrust().approve(request, never);
    };
    await answerOf(["approve", "bob", "--for", "2h", "--ports", "tcp/443,udp/53", "--max", "1GiB"], { approve });
    expect(seen).toEqual({ peer: "bob", ports: "tcp/443,udp/53", forMs: 7_200_000, maxBytes: 2 ** 30 });
  });
});

describe("trust approve and deny", () => {
  it("say what trust became", async () => {
    expect(await answerOf(["approve", "bob"])).toBe(
      lines(
        "approved bob.pilot: trust is mutual",
        "granted: in tcp/443 udp/53, out nothing, 1 h 59 min left, 45.8 MiB left",
      ),
    );
    expect(await answerOf(["deny", "bob"])).toBe("denied bob.pilot: trust is none\n");
  });
});

describe("trust ls", () => {
  it("lists every record, tombstones too", async () => {
    expect(await answerOf(["ls"])).toBe(
      lines(
        "PEER              ADDRESS            TRUST    SINCE          EPOCH  KEY         LEASE",
        "bob.pilot         fd50:494c:4f54::7  mutual   20 s ago       0      SHA256:abc  " +
          "in tcp/443 udp/53, out nothing, 1 h 59 min left, 45.8 MiB left",
        "0:0000.0000.0009  fd50:494c:4f54::9  revoked  1 h 6 min ago  2      -           -",
      ),
    );
    expect(await answerOf(["list"])).toBe(await answerOf(["ls"]));
    expect(await answerOf(["ls"], { ls: async () => ({ entries: [] }) })).toBe("(none)\n");
  });
});

describe("trust revoke", () => {
  it("says which flows were cut, how fast, and whether the peer knows", async () => {
    expect(await answerOf(["revoke", "bob"])).toBe(
      lines(
        "revoked bob.pilot (epoch 4): 1 flow cut in 14 ms, peer acknowledged after 31 ms",
        "ID     PROTO  DIR  LOCAL   PEER           PROGRAM                    RULE                     AGE   IDLE  TX       RX",
        "1a-tq  tcp    out  :51514  bob.pilot:443  curl[4711] backup.service  /etc/pilot-tun/policy:3  12 s  0 s   2.0 KiB  512 B",
      ),
    );
    const reply = await fakeTrust().revoke({ peer: "bob" }, never);
    const told = async (peerTold: "sent" | "unreachable") =>
      await answerOf(["revoke", "bob"], {
        revoke: async () => ({ ...reply, cutFlows: 0, cut: [], peerTold, toldAfterMs: null }),
      });
    expect(await told("sent")).toBe(
      "revoked bob.pilot (epoch 4): 0 flows cut in 14 ms, peer told, no acknowledgement yet\n",
    );
    expect(await told("unreachable")).toContain("peer not reachable, it will be told later\n");
  });
});
