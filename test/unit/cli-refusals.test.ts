import { describe, expect, it } from "vitest";
import type { ErrorCode } from "../../src/base/error-code.ts";
import { PilotError } from "../../src/base/pilot-error.ts";
import { run } from "../../src/cli/program.ts";
import { ERROR_CLASSES } from "../../src/control/api.ts";
import { CapturedProcess, fakeBackend, runCli } from "../helpers/control-fixture.ts";

async function runAlone(...argv: readonly string[]) {
  const captured = new CapturedProcess();
  const code = await run(argv, captured);
  return { code, out: captured.out, err: captured.err };
}

describe("a refusal of the daemon", () => {
  // The codes that scripts rely on, written out a second time on purpose.
  it.each([
    ["internal", 1],
    ["nothing_pending", 1],
    ["some_code_of_tomorrow", 1],
    ["bad_request", 2],
    ["not_overlay_address", 2],
    ["not_running", 3],
    ["network_refused", 4],
    ["not_trusted", 5],
    ["revoked", 5],
    ["revoked_by_peer", 5],
    ["unknown_peer", 6],
    ["unreachable", 6],
    ["registry_down", 6],
    ["timeout", 7],
    ["needs_confirmation", 8],
    ["not_privileged", 9],
  ])("with the code %s ends the command with %i", async (code, exit) => {
    const backend = fakeBackend({
      addr: async () => {
        throw new PilotError(code as ErrorCode, "It cannot be", "Do this.");
      },
    });
    const ran = await runCli(["addr", "bob"], backend);
    expect(ran).toEqual({ code: exit, out: "", err: `error: It cannot be\ncode:  ${code}\nfix:   Do this.\n` });
    const json = await runCli(["addr", "bob", "--json"], backend);
    expect([json.code, json.err]).toEqual([exit, ""]);
    expect(JSON.parse(json.out)).toEqual({
      schema: "pilot-tun/1",
      error: { code, message: "It cannot be", hint: "Do this." },
    });
  });

  it("has an exit code between 1 and 9 and an HTTP error status for every code", () => {
    for (const [code, { exit, status }] of Object.entries(ERROR_CLASSES)) {
      expect(exit, code).toBeGreaterThanOrEqual(1);
      expect(exit, code).toBeLessThanOrEqual(9);
      expect(status, code).toBeGreaterThanOrEqual(400);
    }
  });
});

describe("without a daemon", () => {
  it("a command says how to start one, and ends with 3", async () => {
    const ran = await runAlone("status", "--control", "/nonexistent/control.sock");
    expect(ran.code).toBe(3);
    expect(ran.out).toBe("");
    expect(ran.err).toContain("error: No daemon answers at /nonexistent/control.sock\ncode:  not_running\n");
    expect(ran.err).toContain("pilot-tun up");
  });
});

describe("wrong usage", () => {
  it.each([
    [["statsu"], "Unknown command 'statsu'"],
    [["--bogus"], "Unknown option '--bogus'"],
    [["status", "--bogus"], "Unknown option '--bogus'"],
    [["addr", "a", "b"], "Too many arguments"],
    [["ping"], "Missing required argument 'PEER'"],
    [["whois"], "Missing required argument 'IP'"],
    [["trust"], "A command is missing"],
    [["trust", "frobnicate"], "Unknown command 'frobnicate'"],
    [["trust", "revoke"], "Missing required argument 'PEER'"],
    [["status", "--timeout", "soon"], '--timeout "soon" is not a time'],
    [["status", "--timeout", "0"], '--timeout "0" is not a time'],
    [["status", "--timeout", "2h"], '--timeout "2h" is not a time'],
    [["status", "--control", ""], "--control needs a path"],
    [["ping", "bob", "--count", "0"], '--count "0" is not a whole number'],
    [["ping", "bob", "--interval", "-1"], '--interval "-1" is not a time'],
    [["trust", "ask", "bob", "--reason", "x".repeat(513)], "--purpose has 513 characters"],
  ])("%j ends with 2 and says what is wrong", async (argv, message) => {
    const ran = await runAlone(...argv);
    expect(ran.code).toBe(2);
    expect(ran.out).toBe("");
    expect(ran.err).toContain(`error: ${message}`);
    expect(ran.err).toMatch(/code: {2}usage\nfix: {3}.+\n$/);
    const json = await runAlone(...argv, "--json");
    expect(json.code).toBe(2);
    expect(JSON.parse(json.out).error.code).toBe("usage");
  });

  it("suggests the command that was meant", async () => {
    expect((await runAlone("statsu")).err).toContain("fix:   Did you mean status?");
  });
});

describe("--help", () => {
  it.each([
    [["--help"], ["status", "trust", "Exit codes:", "Examples:"]],
    [
      ["status", "--help"],
      ["--json", "--control", "Examples:"],
    ],
    [
      ["up", "--help"],
      [
        "--registry",
        "--beacon",
        "--state",
        "--tun",
        "--hostname",
        "--listen",
        "--prefix",
        "--mtu",
        "--public",
        "--allow-g1-keys",
      ],
    ],
    [
      ["rendezvous", "--help"],
      ["--registry", "--beacon", "--state", "Examples:"],
    ],
    [["peers", "--help"], ["Examples:"]],
    [
      ["addr", "--help"],
      ["[PEER]", "hostname, Pilot address", "Examples:"],
    ],
    [
      ["ping", "--help"],
      ["<PEER>", "--count", "--interval", "--timeout", "Examples:"],
    ],
    [
      ["whois", "--help"],
      ["<IP>", "Examples:"],
    ],
    [
      ["trust", "--help"],
      ["ask", "pending", "approve", "deny", "ls", "revoke", "Examples:"],
    ],
    [
      ["trust", "ask", "--help"],
      ["<PEER>", "--reason", "Examples:"],
    ],
    [["trust", "pending", "--help"], ["Examples:"]],
    [
      ["trust", "approve", "--help"],
      ["<PEER>", "Examples:"],
    ],
    [
      ["trust", "deny", "--help"],
      ["<PEER>", "Examples:"],
    ],
    [["trust", "ls", "--help"], ["Examples:"]],
    [
      ["trust", "revoke", "--help"],
      ["<PEER>", "Examples:"],
    ],
    [
      ["version", "--help"],
      ["--json", "Examples:"],
    ],
  ])("of %j names its arguments and shows an example", async (argv, words) => {
    const ran = await runAlone(...argv);
    expect([ran.code, ran.err]).toEqual([0, ""]);
    for (const word of words) expect(ran.out).toContain(word);
  });

  it("and the version need no daemon", async () => {
    expect((await runAlone("--version")).out).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect((await runAlone("version")).out).toMatch(/^pilot-tun \d+\.\d+\.\d+ \(node v/);
  });
});
