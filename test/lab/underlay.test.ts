/** The shim's socket on links that are not loopback: a smaller MTU, and one slower than what is sent. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ENDPOINT_SLOT } from "../helpers/data-plane-pair.ts";
import { LabNetwork } from "../helpers/lab-network.ts";
import { LabProcess } from "../helpers/lab-process.ts";
import { builtShim } from "../native/build-shim.ts";

interface Report {
  readonly received: number;
  readonly sent: number;
  readonly failed: number;
  readonly waits: number;
  readonly resumed?: number;
  /** Slot of the endpoint whose frames were too long; -1 for none. */
  readonly tooLong?: number;
}

const network = new LabNetwork("underlay", ["a", "b"], "pair");
const PROGRAM = fileURLToPath(new URL("underlay-program.ts", import.meta.url));
const SUPERPACKET_BYTES = 13_000;

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

/** Single datagrams of `bytes`, three that may break and two that may not; resolves when b has the three. */
async function sendBreakable(address: string, bytes: number): Promise<Report> {
  const receiver = start("b", "receive", address);
  await receiver.waitForLine(/"ready":true/);
  const sender = start("a", "break", address, String(bytes));
  try {
    const sent: Report = JSON.parse(await sender.waitForLine(/"done":true/, 20_000));
    await receiver.waitForLine(/"datagrams":3,/, 20_000);
    return sent;
  } finally {
    for (const program of [receiver, sender]) if (program.isRunning) process.kill(-program.pid!, "SIGKILL");
  }
}

/** Sends `bytes` from a, cut at `segment`; resolves when the socket has taken or refused everything. */
async function send(address: string, bytes: number, segment: number): Promise<Report> {
  const sender = start("a", "send", address, String(bytes), String(segment));
  try {
    const sent: Report = JSON.parse(await sender.waitForLine(/"done":true/, 60_000));
    expect((await sender.ended).code).toBe(0);
    return sent;
  } finally {
    if (sender.isRunning) process.kill(-sender.pid!, "SIGKILL");
  }
}

const framesOf = (bytes: number, segment: number) =>
  Math.ceil(bytes / SUPERPACKET_BYTES) * Math.ceil(SUPERPACKET_BYTES / segment);

/** Sends `bytes` from a to b; resolves with what the sender counted once b has everything. */
async function transfer(address: string, bytes: number, segment: number): Promise<Report> {
  const receiver = start("b", "receive", address);
  try {
    await receiver.waitForLine(/"ready":true/);
    const sent = await send(address, bytes, segment);
    await receiver.waitForLine(new RegExp(`"received":${framesOf(bytes, segment)},`), 20_000);
    return sent;
  } finally {
    if (receiver.isRunning) process.kill(-receiver.pid!, "SIGKILL");
  }
}

describe("a link with a smaller MTU", () => {
  beforeAll(() => {
    for (const host of ["a", "b"]) inNamespace(host, "ip", "link", "set", "dev", "eth0", "mtu", "1400");
  });

  afterAll(() => {
    for (const host of ["a", "b"]) inNamespace(host, "ip", "link", "set", "dev", "eth0", "mtu", "1500");
  });

  const addresses = { IPv4: () => network.addressOf("b"), IPv6: () => network.address6Of("b") };

  it.each(["IPv4", "IPv6"] as const)("takes every frame that fits over %s", async (family) => {
    const sent = await transfer(addresses[family](), 1_300_000, 1200);
    expect(sent).toMatchObject({ failed: 0, tooLong: -1, sent: framesOf(1_300_000, 1200) });
  });

  it.each(["IPv4", "IPv6"] as const)("fragments no frame over %s, and tells whose are too long", async (family) => {
    const sent = await send(addresses[family](), 130_000, 1300);
    expect(sent).toMatchObject({ sent: 0, failed: framesOf(130_000, 1300), tooLong: ENDPOINT_SLOT });
  });

  it.each(["IPv4", "IPv6"] as const)(
    "takes longer single datagrams that may break over %s, and no others",
    async (family) => {
      const sent = await sendBreakable(addresses[family](), 60_000);
      expect(sent).toMatchObject({ sent: 3, failed: 2 });
    },
  );
});

describe("a link slower than what is sent", () => {
  it("makes the sender wait and loses nothing", async () => {
    const shape = ["root", "tbf", "rate", "200mbit", "burst", "64kb", "limit", "100mb"];
    inNamespace("a", "tc", "qdisc", "add", "dev", "eth0", ...shape);
    try {
      const sent = await transfer(network.addressOf("b"), 26_000_000, 1300);
      expect(sent).toMatchObject({ failed: 0 });
      expect(sent.waits).toBeGreaterThan(0);
      expect(sent.resumed).toBeGreaterThan(0);
    } finally {
      inNamespace("a", "tc", "qdisc", "del", "dev", "eth0", "root");
    }
  });
});
