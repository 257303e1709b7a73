/** The shim's socket on links that are not loopback: a smaller MTU, and one slower than what is sent. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LabNetwork } from "../helpers/lab-network.ts";
import { LabProcess } from "../helpers/lab-process.ts";
import { builtShim } from "../native/build-shim.ts";

interface Report {
  readonly received: number;
  readonly sent: number;
  readonly failed: number;
  readonly waits: number;
  readonly resumed?: number;
}

const network = new LabNetwork("underlay", ["a", "b"], "pair");
const PROGRAM = fileURLToPath(new URL("underlay-program.ts", import.meta.url));
const PACKETS_PER_BYTE = 10 / 13_000;

beforeAll(async () => {
  builtShim();
  await network.create();
});

afterAll(() => network.remove());

function inNamespace(host: string, program: string, ...args: readonly string[]): void {
  execFileSync("ip", ["netns", "exec", network.namespaceOf(host), program, ...args]);
}

function start(host: string, ...args: readonly string[]): LabProcess {
  const command = ["netns", "exec", network.namespaceOf(host), process.execPath, PROGRAM, ...args];
  return new LabProcess(`${args[0]} on ${host}`, "ip", command);
}

/** Sends `bytes` from a to b; resolves with both reports once b has everything. */
async function transfer(address: string, bytes: number): Promise<{ sender: Report; receiver: Report }> {
  const receiver = start("b", "receive", address);
  await receiver.waitForLine(/"ready":true/);
  const sender = start("a", "send", address, String(bytes));
  try {
    const sent: Report = JSON.parse(await sender.waitForLine(/"done":true/, 60_000));
    expect((await sender.ended).code).toBe(0);
    const packets = Math.ceil(bytes / 13_000) * 10;
    const received: Report = JSON.parse(await receiver.waitForLine(new RegExp(`"received":${packets},`), 20_000));
    return { sender: sent, receiver: received };
  } finally {
    for (const each of [sender, receiver]) if (each.isRunning) process.kill(-each.pid!, "SIGKILL");
  }
}

describe("a path with a smaller MTU", () => {
  it.each(["IPv4", "IPv6"])("still takes every frame over %s, one by one", async (family) => {
    for (const host of ["a", "b"]) inNamespace(host, "ip", "link", "set", "dev", "eth0", "mtu", "1400");
    try {
      const address = family === "IPv4" ? network.addressOf("b") : network.address6Of("b");
      const { sender } = await transfer(address, 1_300_000);
      expect(sender).toMatchObject({ failed: 0 });
      expect(sender.sent).toBeGreaterThanOrEqual(1_300_000 * PACKETS_PER_BYTE);
    } finally {
      for (const host of ["a", "b"]) inNamespace(host, "ip", "link", "set", "dev", "eth0", "mtu", "1500");
    }
  });
});

describe("a link slower than what is sent", () => {
  it("makes the sender wait and loses nothing", async () => {
    const shape = ["root", "tbf", "rate", "200mbit", "burst", "64kb", "limit", "100mb"];
    inNamespace("a", "tc", "qdisc", "add", "dev", "eth0", ...shape);
    try {
      const { sender } = await transfer(network.addressOf("b"), 26_000_000);
      expect(sender).toMatchObject({ failed: 0 });
      expect(sender.waits).toBeGreaterThan(0);
      expect(sender.resumed).toBeGreaterThan(0);
    } finally {
      inNamespace("a", "tc", "qdisc", "del", "dev", "eth0", "root");
    }
  });
});
