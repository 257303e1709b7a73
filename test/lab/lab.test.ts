/** The lab itself: what other tests stand on. */
import { existsSync, readdirSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { Lab, TIMED_OUT } from "../helpers/lab.ts";

let lab: Lab | undefined;

afterEach(async () => {
  await lab?.close();
  lab = undefined;
});

describe("the lab", () => {
  it("gives hosts that reach each other, by IPv4 and IPv6, and nothing else", async () => {
    lab = await Lab.create("reach");
    for (const [from, to] of [
      ["a", "b"],
      ["c", "a"],
      ["b", "net"],
    ] as const) {
      expect((await lab.exec(from, "ping", ["-c", "1", "-W", "2", lab.network.addressOf(to)])).code).toBe(0);
      expect((await lab.exec(from, "ping", ["-c", "1", "-W", "2", lab.network.address6Of(to)])).code).toBe(0);
    }
    const outside = await lab.exec("a", "ping", ["-c", "1", "-W", "1", "192.0.2.1"]);
    expect(outside.code).not.toBe(0);
  });

  it("ends a program that takes too long, and says so", async () => {
    lab = await Lab.create("late");
    expect(await lab.exec("a", "sleep", ["60"], { timeoutMs: 100 })).toMatchObject({ code: TIMED_OUT });
  });

  it("hands over the output of a program that goes on, line by line", async () => {
    lab = await Lab.create("lines");
    const shell = lab.spawn("a", "sh", ["-c", "echo one; echo two >&2; cat; sleep 60"], { input: "three\n" });
    expect(await shell.waitForLine(/^t/)).toMatch(/two|three/);
    expect(await shell.waitForLine(/three/, 1_000, "stdout")).toBe("three");
    await expect(shell.waitForLine(/four/, 50)).rejects.toThrow("did not print a line like /four/ within 50 ms");
  });

  it("takes everything away at the end, also what was left running", async () => {
    lab = await Lab.create("end");
    const { key } = lab.network;
    const sleeper = lab.spawn("b", "sleep", ["60"]);
    const escaped = lab.spawn("b", "sh", ["-c", "setsid sleep 61 >/dev/null 2>&1 & echo $!"]);
    const escapedPid = await escaped.waitForLine(/^\d+$/);
    const inNamespaces = () => readdirSync("/run/netns").filter((name) => name.startsWith(key));
    expect(inNamespaces()).toHaveLength(4);
    await lab.close();
    expect(inNamespaces()).toEqual([]);
    expect(existsSync(lab.folder)).toBe(false);
    expect(sleeper.isRunning).toBe(false);
    expect(existsSync(`/proc/${escapedPid}/ns/net`)).toBe(false);
    expect(() => lab?.spawn("a", "true")).toThrow("the lab is closed");
  });
});
