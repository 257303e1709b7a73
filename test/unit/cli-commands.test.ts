import { describe, expect, it } from "vitest";
import { PilotError } from "../../src/base/pilot-error.ts";
import { run } from "../../src/cli/program.ts";
import type { ControlBackend } from "../../src/control/api.ts";
import { CapturedProcess, fakeBackend, NETCHECK, runCli, STATUS, withServer } from "../helpers/control-fixture.ts";

async function answerOf(argv: readonly string[], replace: Partial<ControlBackend> = {}): Promise<string> {
  const { code, out, err } = await runCli(argv, fakeBackend(replace));
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return out;
}

function lines(...text: readonly string[]): string {
  return text.join("\n") + "\n";
}

describe("status", () => {
  it("shows this node, its way to the overlay, its peers and its problems", async () => {
    expect(await answerOf(["status"])).toBe(
      lines(
        "interface  pilot0, mtu 1360, up 2 h 5 min",
        "address    fd50:494c:4f54::5",
        "node       alice.pilot, 0:0000.0000.0005, number 5",
        "underlay   0.0.0.0:4000, seen from outside as 198.51.100.23:41113",
        "registry   connected for 1 min, registry.example:9000",
        "beacon     ok, registry.example:9001",
        "names      .pilot by systemd-resolved and at fd50:494c:4f54:ffff::53",
        "requests   1 waiting, see: pilot-tun trust pending",
        "drops      replayed 3, not-trusted 12",
        "version    0.1.0",
        "",
        "PEER              ADDRESS            TRUST   PATH    SESSION  RTT     RX       TX     HEARD     NOTE",
        "bob.pilot         fd50:494c:4f54::7  mutual  direct  noise    4.1 ms  1.2 MiB  512 B  12 s ago",
        "0:0000.0000.0009  fd50:494c:4f54::9  asked   -       -        -       0 B      0 B    -         asked 3m ago",
        "",
        "! systemd-resolved was not told [dns_not_wired]",
        "  fix: start a time service",
      ),
    );
  });

  it("says so where there is nothing", async () => {
    const out = await answerOf(["status"], {
      status: async () => ({
        ...STATUS,
        address: null,
        pilot: null,
        node: null,
        hostname: null,
        peers: [],
        pending: 0,
        drops: {},
        problems: [],
        registry: { state: "down", address: "registry.example:9000", error: "refused", sinceS: 4 },
        beacon: { state: "waiting", address: "registry.example:9001", observed: null, transport: "tcp" },
      }),
    });
    expect(out).toContain("address    (none yet)\nnode       (no hostname), -, number -\nunderlay   0.0.0.0:4000\n");
    expect(out).toContain("registry   down for 4 s, registry.example:9000 (refused)\n");
    expect(out).toContain("beacon     waiting, registry.example:9001, over TCP\n");
    expect(out).toContain("requests   (none)\ndrops      (none)\n");
    expect(out).toMatch(/\npeers {6}\(none\)\n$/);
  });

  it("is what runs without a command, also with global options", async () => {
    expect(await answerOf([])).toBe(await answerOf(["status"]));
    expect(JSON.parse(await answerOf(["--json"]))).toEqual({ schema: "pilot-tun/1", ...STATUS });
  });

  it("lets no text of others drive the terminal", async () => {
    const evil = "\x1b[2Jx\u009b1m\u202ey\n";
    const reply = async () => ({ ...STATUS, peers: [{ ...STATUS.peers[0]!, hostname: evil, note: evil }] });
    const text = await answerOf(["status"], { status: reply });
    expect(text).toContain("?[2Jx?1m?y?.pilot");
    const json = await answerOf(["status", "--json"], { status: reply });
    for (const out of [text, json]) {
      for (const control of ["\x1b", "\u009b", "\u202e"]) expect(out).not.toContain(control);
    }
    expect(JSON.parse(json).peers[0].note).toBe(evil);
  });

  it("is coloured on a terminal only, and not when it is not wanted", async () => {
    const escapes = async (set: (captured: CapturedProcess) => void, ...more: string[]) => {
      const captured = new CapturedProcess();
      set(captured);
      await withServer(fakeBackend(), (path) => run(["status", "--control", path, ...more], captured));
      return captured.out.includes("\x1b[");
    };
    const terminal = (captured: CapturedProcess) => {
      captured.stdoutIsTerminal = true;
    };
    const dumb = (captured: CapturedProcess) => {
      captured.stdoutIsTerminal = true;
      captured.colourWanted = false;
    };
    expect(await escapes(() => undefined)).toBe(false);
    expect(await escapes(terminal)).toBe(true);
    expect(await escapes(terminal, "--no-color")).toBe(false);
    expect(await escapes(terminal, "--json")).toBe(false);
    expect(await escapes(dumb)).toBe(false);
  });
});

describe("netcheck", () => {
  it("says what works, what does not and why", async () => {
    expect(await answerOf(["netcheck"])).toBe(
      lines(
        "UDP out   yes, seen from outside as 198.51.100.23:41113",
        "NAT       mapping endpoint-independent, filtering address-dependent-or-stricter",
        "hairpin   no",
        "MTU       not known",
        "registry  ok in 41 ms, registry.example:9000",
        "beacon    ok in 22 ms, registry.example:9001",
        "fallback  not reached, wss://registry.example/v1/compat (connect ECONNREFUSED 192.0.2.1:443), through the proxy proxy.example:3128",
        "clock     agrees with the registry's",
      ),
    );
  });

  it("says that UDP is blocked and what is used instead, and how far the clocks are apart", async () => {
    const blocked = async () => ({
      ...NETCHECK,
      udp: { out: false, endpoint: null },
      nat: { present: null, mapping: "unknown", filtering: "unknown", hairpin: null } as const,
      transport: "tcp" as const,
      clockSkewMs: -61_000,
    });
    const out = await answerOf(["netcheck"], { netcheck: blocked });
    expect(out).toContain("UDP out   blocked, using TCP\nNAT       not known\nhairpin   not known\n");
    expect(out).toContain("clock     61 s behind the registry's\n");
  });

  it("has the reply itself as JSON", async () => {
    expect(JSON.parse(await answerOf(["netcheck", "--json"]))).toEqual({ schema: "pilot-tun/1", ...NETCHECK });
  });
});

describe("peers", () => {
  it("prints one aligned line per peer", async () => {
    const out = await answerOf(["peers"]);
    expect(out.split("\n")).toHaveLength(4);
    expect(out).toContain(
      "pilot-tun  direct  198.51.100.7:4000  4.1 ms  1.2 MiB (1000)  512 B (4)  noise    1 min ago  12 s ago\n",
    );
    expect(out).toContain("0:0000.0000.0009  asked   -          -       -  ");
  });

  it("says (none) without peers", async () => {
    expect(await answerOf(["peers"], { peers: async () => ({ peers: [] }) })).toBe("(none)\n");
  });
});

describe("addr", () => {
  it("prints an address that can stand in another command", async () => {
    expect(await answerOf(["addr"])).toBe("fd50:494c:4f54::5\n");
    expect(await answerOf(["addr", "bob"])).toBe("fd50:494c:4f54::7\n");
  });

  it("prints every name with --all", async () => {
    expect(await answerOf(["addr", "bob", "--all"])).toBe(
      lines("address   fd50:494c:4f54::7", "pilot     0:0000.0000.0007", "node      7", "hostname  bob.pilot"),
    );
  });
});

describe("whois", () => {
  it("prints names, key and trust", async () => {
    expect(await answerOf(["whois", "fd50:494c:4f54::7"])).toBe(
      lines(
        "hostname  bob.pilot",
        "address   fd50:494c:4f54::7",
        "pilot     0:0000.0000.0007",
        "node      7",
        "key       SHA256:abc",
        "trust     mutual",
        "lease     in tcp/443 udp/53, out nothing, 1 h 59 min left, 45.8 MiB left",
      ),
    );
  });
});

describe("ping", () => {
  const fast = ["--interval", "1ms"];

  it("prints a line per answer and a summary", async () => {
    expect(await answerOf(["ping", "bob", "--count", "2", ...fast])).toBe(
      lines(
        "PING bob.pilot (fd50:494c:4f54::7)",
        "answer from bob.pilot: seq=1 time=4.0 ms path=direct",
        "answer from bob.pilot: seq=2 time=4.0 ms path=direct",
        "",
        "bob.pilot: 2 sent, 2 answered, 0% lost",
        "round trip min/mean/max 4.00/4.00/4.00 ms",
      ),
    );
  });

  it("prints one object with --json", async () => {
    expect(JSON.parse(await answerOf(["ping", "bob", "-c", "2", "--json", ...fast]))).toMatchObject({
      schema: "pilot-tun/1",
      peer: { node: 7 },
      replies: [
        { seq: 1, rttMs: 4 },
        { seq: 2, rttMs: 4 },
      ],
      sent: 2,
      received: 2,
      path: "direct",
    });
  });

  it("ends well when any was answered", async () => {
    let calls = 0;
    const ran = await runCli(
      ["ping", "bob", "-c", "2", "--timeout", "300ms", ...fast],
      lossy("direct", () => calls++ === 0),
    );
    expect(ran.code).toBe(0);
    expect(ran.out).toContain("no answer from bob.pilot: seq=1 after 300 ms\n");
    expect(ran.out).toContain("2 sent, 1 answered, 50% lost\n");
  });

  it.each([
    ["direct", 7, "timeout"],
    ["relay", 7, "timeout"],
    ["none", 6, "unreachable"],
  ] as const)("ends with its own code when nothing was answered over path %s", async (path, code, name) => {
    const backend = lossy(path, () => true);
    const ran = await runCli(["ping", "bob", "-c", "1", "--timeout", "2s"], backend);
    expect(ran.code).toBe(code);
    expect(ran.err).toMatch(new RegExp(`^error: .*bob\\.pilot.*\ncode: {2}${name}\nfix: .+\n$`));
    const json = await runCli(["ping", "bob", "-c", "1", "--json"], backend);
    expect([json.code, json.err]).toEqual([code, ""]);
    expect(JSON.parse(json.out)).toMatchObject({ sent: 1, received: 0, error: { code: name } });
  });

  it("keeps what it measured when the peer is revoked meanwhile", async () => {
    let calls = 0;
    const ran = await runCli(
      ["ping", "bob", "-c", "3", ...fast],
      fakeBackend({
        ping: async (request, signal) => {
          if (calls++ === 1) throw new PilotError("revoked_by_peer", "bob has revoked", "Ask again.");
          return await fakeBackend().ping(request, signal);
        },
      }),
    );
    expect(ran.code).toBe(5);
    expect(ran.out).toContain("1 sent, 1 answered, 0% lost\n");
    expect(ran.err).toContain("code:  revoked_by_peer\n");
  });

  it("ends with the summary on SIGINT", async () => {
    const captured = new CapturedProcess();
    const code = await withServer(
      fakeBackend({
        ping: async (request, signal) => {
          setTimeout(() => captured.signal("SIGINT"), 30);
          return await fakeBackend().ping(request, signal);
        },
      }),
      (path) => run(["ping", "bob", "-c", "100", "-i", "10s", "--control", path], captured),
    );
    expect(code).toBe(0);
    expect(captured.out).toContain("bob.pilot: 1 sent, 1 answered, 0% lost\n");
    expect(captured.signal("SIGINT")).toBe(0);
  });

  function lossy(path: "direct" | "relay" | "none", loses: () => boolean): ControlBackend {
    return fakeBackend({
      ping: async (request, signal) => {
        const reply = await fakeBackend().ping(request, signal);
        if (!loses()) return { ...reply, path };
        return { ...reply, path, replies: [{ seq: 1, rttMs: null }], received: 0 };
      },
    });
  }
});

describe("--json", () => {
  it.each([
    ["status"],
    ["peers"],
    ["addr"],
    ["addr bob"],
    ["ping bob -c 1"],
    ["whois fd50:494c:4f54::7"],
    ["trust ask bob"],
    ["trust pending"],
    ["trust approve bob"],
    ["trust deny bob"],
    ["trust ls"],
    ["trust revoke bob"],
    ["version"],
  ])("makes `%s` print one object of the schema on one line", async (line) => {
    const out = await answerOf([...line.split(" "), "--json"]);
    expect(out.match(/\n/g)).toHaveLength(1);
    expect(JSON.parse(out).schema).toBe("pilot-tun/1");
  });
});
