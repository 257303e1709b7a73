/** What an operator runs when something is to be waited for, scripted or found out: wait, show, doctor, bugreport. */
import { describe, expect, it } from "vitest";
import { redact } from "../../src/cli/bugreport.ts";
import { run } from "../../src/cli/program.ts";
import type { ControlBackend, StatusReply } from "../../src/control/api.ts";
import { BOB_STATUS, CapturedProcess, fakeBackend, withServer } from "../helpers/control-fixture.ts";

const STATUS = await fakeBackend().status({}, AbortSignal.timeout(1000));

async function ran(words: readonly string[], backend: Partial<ControlBackend> = {}) {
  const captured = new CapturedProcess();
  const code = await withServer(fakeBackend(backend), (path) => run([...words, "--control", path], captured));
  return { code, out: captured.out, err: captured.err };
}

const saying = (change: Partial<StatusReply>): Partial<ControlBackend> => ({
  status: async () => ({ ...STATUS, ...change }),
});

describe("wait", () => {
  it("ends when the daemon has its address, names are answered, or the peer is reached", async () => {
    for (const what of ["ready", "dns", "peer=bob", "peer=bob.pilot", "peer=7", `peer=${BOB_STATUS.address}`]) {
      expect([what, (await ran(["wait", "--for", what])).code]).toEqual([what, 0]);
    }
  });

  it("asks again until it is so", async () => {
    let asked = 0;
    const status = async () => ({ ...STATUS, address: ++asked < 3 ? null : STATUS.address });
    const { code, out } = await ran(["wait", "--json"], { status });
    expect([code, asked]).toEqual([0, 3]);
    expect(JSON.parse(out)).toMatchObject({ schema: "pilot-tun/1", for: "ready" });
  });

  it("gives up in time with exit code 7, also when no daemon comes", async () => {
    const late = await ran(["wait", "--for", "peer=nobody", "--timeout", "300ms"]);
    expect([late.code, late.err]).toEqual([7, expect.stringContaining("code:  timeout")]);
    const captured = new CapturedProcess();
    expect(await run(["wait", "--timeout", "200ms", "--control", "/nowhere/control.sock"], captured)).toBe(7);
  });

  it("is refused for what cannot be waited for", async () => {
    expect((await ran(["wait", "--for", "rain"])).code).toBe(2);
  });
});

describe("show", () => {
  it("has every fact of every peer", async () => {
    const { out } = await ran(["show"]);
    for (const text of [
      "interface: pilot0",
      "peer: bob.pilot",
      "  endpoint: 198.51.100.7:4000",
      "  trust: mutual",
      "  round trip: 4.1 ms",
    ]) {
      expect(out).toContain(text);
    }
  });

  it("dump has a line each with as many fields, none of which can hold a tab", async () => {
    const peers = [{ ...BOB_STATUS, hostname: "b\to\nb" }, ...STATUS.peers];
    const { out } = await ran(["show", "dump"], saying({ peers }));
    const [first, ...others] = out.trimEnd().split("\n");
    expect(first?.split("\t")).toHaveLength(6);
    expect(others).toHaveLength(peers.length);
    for (const line of others) expect(line.split("\t")).toHaveLength(11);
    expect(others[1]).toBe(
      `7\tbob\t${BOB_STATUS.address}\t198.51.100.7:4000\tdirect\t1258291\t512\t12\tmutual\t-\t4.12`,
    );
  });
});

describe("doctor", () => {
  it("names what is wrong and the command that mends it, and leaves with 1", async () => {
    const registry = { ...STATUS.registry, state: "down", error: "refused" } as const;
    const { code, out } = await ran(["doctor", "--json"], saying({ registry }));
    expect(code).toBe(1);
    const { findings } = JSON.parse(out) as {
      findings: { topic: string; ok: boolean; text: string; fix: string | null }[];
    };
    for (const { ok, fix } of findings) expect(fix === null).toBe(ok);
    expect(findings).toContainEqual(
      expect.objectContaining({ topic: "network", ok: false, fix: "pilot-tun netcheck" }),
    );
    expect(findings).toContainEqual(
      expect.objectContaining({ topic: "daemon", ok: false, fix: "start a time service" }),
    );
  });

  it.each([
    ["applied", 0, "systemd-resolved asks there"],
    ["absent", 1, "server=/pilot/fd50:494c:4f54:ffff::53"],
    ["refused", 1, "resolvectl domain pilot0 '~pilot'"],
  ] as const)("says of names, with resolved %s, what to do", async (resolved, code, text) => {
    const ended = await ran(["doctor", "dns"], saying({ dns: { ...STATUS.dns, resolved } }));
    expect([ended.code, ended.out]).toEqual([code, expect.stringContaining(text)]);
  });

  it("says how to start a daemon that does not run", async () => {
    const captured = new CapturedProcess();
    expect(await run(["doctor", "daemon", "--control", "/nowhere/control.sock"], captured)).toBe(1);
    expect(captured.out).toContain("fix: systemctl start pilot-tun");
  });

  it("knows its topics", async () => {
    expect((await ran(["doctor", "weather"])).err).toContain("dns");
  });
});

describe("bugreport", () => {
  it("holds what the daemon says of itself, and what it could not say", async () => {
    const netcheck = () => Promise.reject(new Error("no"));
    const { code, out } = await ran(["bugreport"], { netcheck });
    expect(code).toBe(0);
    const report = JSON.parse(out);
    expect(report.status.interface).toBe("pilot0");
    expect(report.netcheck.error.code).toBe("internal");
  });

  it("redacted names nobody and no place, and still tells the same from another", async () => {
    const whole = (await ran(["bugreport"])).out;
    const { out } = await ran(["bugreport", "--redact"]);
    for (const secret of [
      "bob",
      "alice",
      "198.51.100",
      "fd50:494c",
      "0000.0007",
      "registry.example",
      STATUS.publicKey,
    ]) {
      expect([secret, whole.includes(secret), out.includes(secret)]).toEqual([
        secret,
        secret !== "alice" || whole.includes(secret),
        false,
      ]);
    }
    const report = JSON.parse(out);
    expect(report.status.peers[0].hostname).toMatch(/^name-\d+$/);
    expect(report.status.peers[0].address).not.toBe(report.status.peers[1].address);
    expect(report.status.peers[0].rxBytes).toBe(BOB_STATUS.rxBytes);
  });

  it("gives the same stand-in for the same thing, and leaves times and versions alone", () => {
    const text = redact(
      '{"hostname": "bob", "x": "bob at 192.0.2.7:4000 and 192.0.2.7, bobby", "t": "12:30:59", "v": "1.2.3"}',
    );
    expect(text).toBe(
      '{"hostname": "name-1", "x": "name-1 at ip4-1:4000 and ip4-1, bobby", "t": "12:30:59", "v": "1.2.3"}',
    );
  });
});
