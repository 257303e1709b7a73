import { resolve } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PilotError } from "../../src/base/pilot-error.ts";
import { Context, type Input } from "../../src/cli/context.ts";
import {
  type Parsed,
  parseBindAddress,
  parseDuration,
  parseHostname,
  parseHostPort,
  parseInterfaceName,
  parsePrefix,
  parseTags,
  parseWhole,
} from "../../src/cli/parse-options.ts";
import { run } from "../../src/cli/program.ts";
import { parseRendezvousOptions, type RendezvousOptions, rendezvous } from "../../src/cli/rendezvous.ts";
import { parseUpOptions, up } from "../../src/cli/up.ts";
import type { UpOptions } from "../../src/daemon/up-options.ts";
import { CapturedProcess } from "../helpers/control-fixture.ts";

function parsedValue<T>(parsed: Parsed<T>): T | "refused" {
  return "value" in parsed ? parsed.value : "refused";
}

const REFUSED = "refused";

describe("an option's text", () => {
  it.each([
    ["registry.example:9000", { host: "registry.example", port: 9000 }],
    ["a:1", { host: "a", port: 1 }],
    ["192.0.2.1:65535", { host: "192.0.2.1", port: 65_535 }],
    ["[2001:db8::1]:9000", { host: "2001:db8::1", port: 9000 }],
    ["2001:db8::1:9000", REFUSED],
    ["registry.example", REFUSED],
    ["registry.example:0", REFUSED],
    ["registry.example:65536", REFUSED],
    ["-a:9000", REFUSED],
    ["a..b:9000", REFUSED],
    ["300.1.1.1:9000", REFUSED],
    ["[192.0.2.1]:9000", REFUSED],
    ["[::g]:9000", REFUSED],
    [`${"a".repeat(64)}:9000`, REFUSED],
    [":9000", REFUSED],
    ["http://registry.example:9000", REFUSED],
    [undefined, REFUSED],
  ])("HOST:PORT %j is %j", (text, value) => {
    expect(parsedValue(parseHostPort("--registry", text))).toEqual(value);
  });

  it.each([
    ["0.0.0.0:4000", { address: "0.0.0.0", port: 4000 }],
    ["[::]:4000", { address: "::", port: 4000 }],
    ["[2001:DB8:0::1]:4000", { address: "2001:db8::1", port: 4000 }],
    ["[::ffff:192.0.2.1]:4000", { address: "192.0.2.1", port: 4000 }],
    ["localhost:4000", REFUSED],
    ["0.0.0.0", REFUSED],
    [undefined, REFUSED],
  ])("ADDR:PORT %j is %j", (text, value) => {
    expect(parsedValue(parseBindAddress("--listen", text))).toEqual(value);
  });

  it.each([
    ["pilot0", true],
    ["a.b_c-d", true],
    ["123456789012345", true],
    ["1234567890123456", false],
    ["", false],
    [".", false],
    ["..", false],
    ["a/b", false],
    ["a b", false],
    ["a:b", false],
    ["tun%d", false],
  ])("interface name %j is valid: %s", (text, isValid) => {
    expect(parsedValue(parseInterfaceName("--tun", text)) === text).toBe(isValid);
  });

  it.each([
    ["web,db", ["web", "db"]],
    ["#web, db,web", ["web", "db"]],
    ["", []],
    ["Web", "refused"],
    ["-web", "refused"],
    ["x".repeat(33), "refused"],
    ["a,b,c,d,e,f,g,h,i,j,k", "refused"],
  ])("tags %j are read as %j", (text, tags) => {
    expect(parsedValue(parseTags("--tags", text))).toEqual(tags);
  });

  it.each([
    ["alice", true],
    ["a", true],
    ["a-1", true],
    ["1a", true],
    ["x".repeat(63), true],
    ["x".repeat(64), false],
    ["", false],
    ["Alice", false],
    ["alice.pilot", false],
    ["-a", false],
    ["a-", false],
    ["a_b", false],
    ["localhost", false],
    ["12", false],
  ])("hostname %j is valid: %s", (text, isValid) => {
    expect(parsedValue(parseHostname("--hostname", text)) === text).toBe(isValid);
  });

  it.each([
    ["500ms", 500],
    ["5s", 5000],
    ["5", 5000],
    ["1.5s", 1500],
    ["2m", 120_000],
    ["60m", 3_600_000],
    ["61m", REFUSED],
    ["0", REFUSED],
    ["0.0001", REFUSED],
    ["-1s", REFUSED],
    ["1h", REFUSED],
    ["", REFUSED],
    ["1e3", REFUSED],
  ])("time %j is %j ms", (text, value) => {
    expect(parsedValue(parseDuration("--timeout", text))).toBe(value);
  });

  it("is a whole number in its range or refused", () => {
    expect(parsedValue(parseWhole("--mtu", "1280", 1280, 9000))).toBe(1280);
    expect(parsedValue(parseWhole("--mtu", "9000", 1280, 9000))).toBe(9000);
    for (const text of ["1279", "9001", "1e3", "1360.5", "0x600", "", " 1300", undefined]) {
      expect(parsedValue(parseWhole("--mtu", text, 1280, 9000)), String(text)).toBe(REFUSED);
    }
  });

  it("is a unique local /48 prefix or refused", () => {
    const bytes = Uint8Array.from([0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54]);
    expect(parsedValue(parsePrefix("--prefix", "FD50:494C:4F54::/48"))).toEqual({ text: "fd50:494c:4f54::/48", bytes });
    for (const text of [
      "fd50:494c:4f54::",
      "fd50:494c:4f54::/64",
      "fd50:494c:4f54::1/48",
      "2001:db8::/48",
      "00fd::/48",
      "x",
    ]) {
      expect(parsedValue(parsePrefix("--prefix", text)), text).toBe(REFUSED);
    }
  });

  it("of any kind is parsed or refused, never thrown at", () => {
    const parsers = [parseHostPort, parseBindAddress, parseInterfaceName, parseHostname, parseDuration, parsePrefix];
    const pieces = fc.constantFrom(
      "[",
      "]",
      ":",
      "::",
      "/48",
      ".",
      "fd50",
      "1",
      "99999",
      "%",
      "-",
      "a",
      "ffff",
      "192.0.2.1",
    );
    const text = fc.oneof(
      fc.string(),
      fc.array(pieces, { maxLength: 12 }).map((some) => some.join("")),
    );
    fc.assert(
      fc.property(fc.constantFrom(...parsers), text, (parse, some) => {
        const parsed = parse("--option", some);
        if ("problem" in parsed) expect(parsed.problem.hint).not.toBe("");
        else expect(parsed.value).toBeDefined();
      }),
    );
  });
});

const DEFAULTS = {
  state: "/var/lib/pilot-tun",
  tun: "pilot0",
  prefix: "fd50:494c:4f54::/48",
  mtu: "1360",
  rekeyEvery: "120s",
  auditKeep: "8x16M",
};
const WHERE = { registry: "registry.example:9000", beacon: "registry.example:9001" };

function inputOf(options: Input["options"]): Input {
  return { args: [], options, declared: [], written: new Set() };
}

function contextOf(captured: CapturedProcess, json = false): Context {
  return new Context(captured, {
    instance: undefined,
    control: "/run/pilot-tun/control.sock",
    json,
    colour: true,
    timeoutMs: undefined,
  });
}

describe("up", () => {
  it("hands the daemon checked options", () => {
    const raw = {
      ...DEFAULTS,
      ...WHERE,
      state: "state",
      hostname: "alice",
      listen: "[::]:4000",
      public: true,
      allowG1Keys: true,
    };
    expect(parseUpOptions(contextOf(new CapturedProcess()), raw)).toEqual({
      registry: { host: "registry.example", port: 9000 },
      registrySecurity: { kind: "plain" },
      policy: { path: "/etc/pilot-tun/policy", mustExist: false },
      beacon: { host: "registry.example", port: 9001 },
      stateDir: resolve("state"),
      control: "/run/pilot-tun/control.sock",
      tun: "pilot0",
      hostname: "alice",
      listen: { address: "::", port: 4000 },
      prefix: { text: "fd50:494c:4f54::/48", bytes: Uint8Array.from([0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54]) },
      mtu: 1360,
      rekeyEveryMs: 120_000,
      public: true,
      dns: true,
      prefer: true,
      allowLegacyKeys: true,
      plainOnly: false,
      relayOnly: false,
      compat: { host: "registry.example", port: 443, path: "/v1/compat", fingerprint: undefined },
      audit: { directory: resolve("state/audit"), keepFiles: 8, maxFileBytes: 16 * 1024 * 1024 },
    });
  });

  it("reads where the audit log is and how much of it is kept, or that there is none", () => {
    const auditOf = (more: object) => {
      return parseUpOptions(contextOf(new CapturedProcess()), { ...DEFAULTS, ...WHERE, ...more }).audit;
    };
    expect(auditOf({ audit: "/log", auditKeep: "2x64K" })).toEqual({
      directory: "/log",
      keepFiles: 2,
      maxFileBytes: 64 * 1024,
    });
    expect(auditOf({ audit: false })).toBeUndefined();
    for (const auditKeep of ["", "8", "1x16M", "8x1K", "8x2000M", "8x16", "20000x1M", "8 x 16M"]) {
      expect(() => auditOf({ auditKeep })).toThrow(/audit-keep/);
    }
  });

  it("reads where the way around blocked UDP is, or that there is none", () => {
    const compatOf = (more: object) => {
      const options = { ...DEFAULTS, ...WHERE, ...more };
      return parseUpOptions(contextOf(new CapturedProcess()), options).compat;
    };
    const pin = `${"AB:".repeat(31)}AB`;
    expect(compatOf({ compat: "wss://relay.example:8443", compatFingerprint: pin })).toEqual({
      host: "relay.example",
      port: 8443,
      path: "/v1/compat",
      fingerprint: "ab".repeat(32),
    });
    expect(compatOf({ compat: "wss://[2001:db8::1]/other" })).toMatchObject({ host: "2001:db8::1", path: "/other" });
    expect(compatOf({ compat: "relay.example" })).toMatchObject({ host: "relay.example", port: 443 });
    expect(compatOf({ compat: false })).toBeUndefined();
    for (const wrong of [{ compat: "ws://x" }, { compat: "https://x" }, { compatFingerprint: "abc" }]) {
      expect(() => compatOf(wrong)).toThrow(/compat/);
    }
  });

  it("leaves to the daemon what was not given", () => {
    const options = parseUpOptions(contextOf(new CapturedProcess()), { ...DEFAULTS, ...WHERE });
    expect(options).toMatchObject({ hostname: undefined, listen: undefined, public: false, allowLegacyKeys: false });
  });

  it("reports everything that is wrong at once, and starts nothing", async () => {
    const argv = [
      "up",
      "--registry",
      "x",
      "--tun",
      "a b",
      "--hostname",
      "A",
      "--mtu",
      "9",
      "--prefix",
      "::/48",
      "--listen",
      "y",
    ];
    const captured = new CapturedProcess();
    expect(await run(argv, captured)).toBe(2);
    const messages = captured.err.split("\n").filter((line) => line.startsWith("error: "));
    expect(messages.map((line) => /--[a-z]+/.exec(line)?.[0])).toEqual([
      "--registry",
      "--beacon",
      "--tun",
      "--hostname",
      "--listen",
      "--prefix",
      "--mtu",
    ]);
    const json = new CapturedProcess();
    expect(await run([...argv, "--json"], json)).toBe(2);
    expect(JSON.parse(json.out).problems).toHaveLength(7);
  });

  it("prints one line when ready, and ends with 0 on SIGTERM", async () => {
    const captured = new CapturedProcess();
    let given: UpOptions | undefined;
    let closes = 0;
    const ended = up(contextOf(captured), inputOf({ ...DEFAULTS, ...WHERE }), async (options) => {
      given = options;
      return {
        readyLine: "pilot0 ready",
        ready: READY,
        closed: new Promise(() => undefined),
        close: async () => void closes++,
      };
    });
    await turn();
    expect(captured.out).toBe("pilot0 ready\n");
    expect(captured.outlivesReader).toBe(true);
    expect(given?.signal.aborted).toBe(false);
    captured.signal("SIGTERM");
    expect(await ended).toBe(0);
    expect([closes, captured.exits]).toEqual([1, []]);
  });

  it("prints the facts as one object with --json", async () => {
    const captured = new CapturedProcess();
    const closed = Promise.resolve();
    const code = await up(contextOf(captured, true), inputOf({ ...DEFAULTS, ...WHERE }), async () => ({
      readyLine: "",
      ready: READY,
      closed,
      close: () => closed,
    }));
    expect(code).toBe(0);
    expect(JSON.parse(captured.out)).toEqual({ schema: "pilot-tun/1", ...READY });
  });
});

describe("rendezvous with TLS", () => {
  const raw = { registry: "0.0.0.0:9000", beacon: "0.0.0.0:9001", state: "/srv/rv" };
  const parse = (more: object) => parseRendezvousOptions({ ...raw, ...more });

  it("takes a certificate from files, or makes one for the addresses it is bound to", () => {
    const files = {
      compat: "192.0.2.1:443",
      tlsCert: "/c.pem",
      tlsKey: "/k.pem",
      beaconProbe: "192.0.2.1:9002,192.0.2.2:9002",
    };
    expect(parse(files)).toMatchObject({
      compat: { address: "192.0.2.1", port: 443 },
      beaconProbe: [
        { address: "192.0.2.1", port: 9002 },
        { address: "192.0.2.2", port: 9002 },
      ],
      tls: { kind: "files", certFile: "/c.pem", keyFile: "/k.pem" },
    });
    expect(parse({ compat: "192.0.2.1:443", tlsSelfSigned: true }).tls).toEqual({
      kind: "self-signed",
      stateDir: "/srv/rv",
      names: ["0.0.0.0", "192.0.2.1"],
    });
  });

  it("refuses half a certificate, two of them, and a compat endpoint without", () => {
    const wrong = [{ compat: "0.0.0.0:443" }, { tlsCert: "/c" }, { tlsKey: "/k" }];
    for (const more of wrong) expect(() => parse(more)).toThrow(/TLS|belong together/);
    expect(() => parse({ tlsSelfSigned: true, tlsCert: "/c", tlsKey: "/k" })).toThrow(/excludes/);
  });
});

describe("rendezvous", () => {
  it("limits what nodes with and without a proof may relay, in Mbit/s", () => {
    const raw = { registry: "0.0.0.0:9000", beacon: "0.0.0.0:9001", state: "/srv/rv" };
    expect(parseRendezvousOptions({ ...raw, relayLimit: "800", relayLimitUnproven: "40" }).beaconLimits).toEqual({
      relayBytes: { perSecond: 100_000_000, burst: 20_000_000 },
      unprovenRelay: { perSecond: 5000, burst: 1000 },
      unprovenRelayBytes: { perSecond: 5_000_000, burst: 1_000_000 },
    });
    expect(() => parseRendezvousOptions({ ...raw, relayLimitUnproven: "0" })).toThrow("--relay-limit-unproven");
  });

  it("prints where it listens, and ends with 0 on SIGINT", async () => {
    const captured = new CapturedProcess();
    const raw = { registry: "0.0.0.0:9000", beacon: "[::]:9001", state: "/srv/rv" };
    let given: RendezvousOptions | undefined;
    const ended = rendezvous(contextOf(captured), inputOf(raw), async (options) => {
      given = options;
      return { close: async () => undefined };
    });
    await turn();
    expect(captured.out).toBe("rendezvous ready: registry 0.0.0.0:9000, beacon [::]:9001, state /srv/rv\n");
    expect(given).toMatchObject({
      registry: { address: "0.0.0.0", port: 9000 },
      beacon: { address: "::", port: 9001 },
      stateDir: "/srv/rv",
    });
    given?.onProblem(new PilotError("state_unwritable", "The disk is full", "Make room."));
    expect(captured.err).toBe("error: The disk is full\ncode:  state_unwritable\nfix:   Make room.\n");
    captured.signal("SIGINT");
    expect(await ended).toBe(0);
  });

  it("reports everything that is wrong at once", async () => {
    const captured = new CapturedProcess();
    expect(await run(["rendezvous", "--beacon", "localhost:9001", "--state", ""], captured)).toBe(2);
    expect(captured.err.match(/^error: /gm)).toHaveLength(3);
  });
});

const READY = {
  interface: "pilot0",
  address: "fd50:494c:4f54::5",
  pilot: "0:0000.0000.0005",
  node: 5,
  hostname: "alice",
  listen: "0.0.0.0:4000",
  control: "/run/pilot-tun/control.sock",
};

function turn(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}
