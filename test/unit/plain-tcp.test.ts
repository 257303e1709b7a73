/** The daemon's sockets on loopback: what the kernel does becomes events, commands become what a program sees. */
import { connect, createServer, type Socket } from "node:net";
import { afterEach, expect, it } from "vitest";
import { BlockPool } from "../../src/base/block-pool.ts";
import type { SocketEvent } from "../../src/engine/plain/socket-messages.ts";
import { PlainTcp } from "../../src/io/plain-tcp.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const LOOPBACK = new Uint8Array(16);
LOOPBACK[15] = 1;

const events: SocketEvent[] = [];
/** Bytes of data in each batch of them. */
const batches: number[] = [];
const open: { close(): unknown }[] = [];

afterEach(() => {
  for (const each of open.splice(0)) each.close();
  events.length = 0;
  batches.length = 0;
});

/** `farPort`: where a "connect" leads. */
function start(accepted: (port: number) => number | undefined = () => undefined, farPort?: () => number | undefined) {
  const localPorts: number[] = [];
  const tcp = new PlainTcp(new BlockPool(), {
    accepted: (address, port) => (Buffer.from(LOOPBACK).equals(address) ? accepted(port) : undefined),
    bound: (_id, localPort) => {
      localPorts.push(localPort);
      return farPort?.();
    },
    handleEvents: (batch) => {
      events.push(...batch);
      batches.push(batch.reduce((sum, each) => sum + (each.kind === "data" ? each.bytes.length : 0), 0));
    },
  });
  open.push(tcp);
  return { tcp, port: tcp.listen("::1"), localPorts };
}

async function until<T>(find: () => T | undefined): Promise<T> {
  for (let i = 0; i < 400; i++) {
    const found = find();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`not within two seconds; events: ${JSON.stringify(events)}`);
}

const event = (kind: SocketEvent["kind"]) => until(() => events.find((each) => each.kind === kind));

function program(port: number): { socket: Socket; error: Promise<string | undefined>; received: () => string } {
  const socket = connect({ host: "::1", port, allowHalfOpen: true });
  let received = "";
  socket.on("data", (bytes) => {
    received += bytes.toString();
  });
  const error = new Promise<string | undefined>((resolve) => {
    socket.on("error", (problem: NodeJS.ErrnoException) => resolve(problem.code));
    socket.on("close", () => resolve(undefined));
  });
  open.push({ close: () => socket.destroy() });
  return { socket, error, received: () => received };
}

it("resets a connection that nobody knows", async () => {
  const { port } = start();
  expect(await program(port).error).toBe("ECONNRESET");
  expect(events).toEqual([]);
});

it("carries bytes both ways and ends each direction by itself", async () => {
  const { tcp, port } = start(() => 7);
  const { socket, received } = program(port);
  await event("connected");
  socket.end("question");
  const data = (await event("data")) as Extract<SocketEvent, { kind: "data" }>;
  expect(Buffer.from(data.bytes).toString()).toBe("question");
  await event("ended");
  tcp.handle({ kind: "write", id: 7, bytes: new TextEncoder().encode("answer") });
  expect(await event("written")).toEqual({ kind: "written", id: 7, byteCount: 6 });
  tcp.handle({ kind: "end", id: 7 });
  expect(await event("closed")).toEqual({ kind: "closed", id: 7, inOrder: true });
  await until(() => (received() === "answer" ? true : undefined));
});

it("carries resets both ways", async () => {
  const ids = [1, 2];
  const { tcp, port } = start(() => ids.shift());
  const first = program(port);
  await event("connected");
  first.socket.resetAndDestroy();
  expect(await event("closed")).toEqual({ kind: "closed", id: 1, inOrder: false });
  const second = program(port);
  await until(() => events.find((each) => each.kind === "connected" && each.id === 2));
  tcp.handle({ kind: "reset", id: 2 });
  expect(await second.error).toBe("ECONNRESET");
});

it("connects from a port that nobody has to where it is told, and says when nobody listens", async () => {
  const callers: (number | undefined)[] = [];
  const server = createServer((socket) => {
    callers.push(socket.remotePort);
    socket.on("error", () => undefined); // the end of the test resets it
  }).listen(0, "::1");
  open.push(server);
  await until(() => (server.listening ? true : undefined));
  const ports: (number | undefined)[] = [(server.address() as { port: number }).port, 1, undefined];
  const { tcp, localPorts } = start(undefined, () => ports.shift());
  tcp.handle({ kind: "connect", id: 3, remoteAddress: LOOPBACK });
  expect(await event("connected")).toEqual({ kind: "connected", id: 3 });
  await until(() => callers[0]);
  expect(callers).toEqual(localPorts);
  tcp.handle({ kind: "connect", id: 4, remoteAddress: LOOPBACK });
  expect(await event("refused")).toEqual({ kind: "refused", id: 4 });
  tcp.handle({ kind: "connect", id: 5, remoteAddress: LOOPBACK }); // it is over by now
  await until(() => events.find((each) => each.kind === "refused" && each.id === 5));
  expect(new Set(localPorts).size).toBe(3);
});

it("carries megabytes both ways at once, whatever the other side takes at a time, in the right order", async () => {
  const { tcp, port } = start(() => 7);
  const bytes = seededBytes(5)(8 << 20);
  const socket = connect({ host: "::1", port });
  open.push({ close: () => socket.destroy() });
  await event("connected");
  const pieces: Buffer[] = [];
  socket.on("data", (piece) => {
    pieces.push(piece);
    if (pieces.length % 8 !== 0) return;
    socket.pause();
    setTimeout(() => socket.resume(), 1);
  });
  for (let at = 0; at < bytes.length; at += 100_003) {
    tcp.handle({ kind: "write", id: 7, bytes: bytes.subarray(at, at + 100_003) });
  }
  tcp.handle({ kind: "end", id: 7 });
  socket.end(bytes);
  await event("closed");
  await until(() => (socket.readableEnded ? true : undefined));
  const arrived = events.filter((each) => each.kind === "data").map((each) => each.bytes);
  expect(Buffer.concat(arrived).equals(bytes)).toBe(true);
  expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
  const written = events.filter((each) => each.kind === "written").reduce((sum, { byteCount }) => sum + byteCount, 0);
  expect(written).toBe(bytes.length);
});

it("takes two megabytes at a time at most, so that one turn never holds much, and gets all in the end", async () => {
  let id = 0;
  const { port } = start(() => ++id);
  const block = new Uint8Array(400_000);
  for (let each = 0; each < 40; each++) program(port).socket.end(block);
  await until(() => (events.filter(({ kind }) => kind === "ended").length === 40 ? true : undefined));
  expect(Math.max(...batches)).toBeLessThanOrEqual(2 << 20);
  expect(batches.reduce((sum, bytes) => sum + bytes, 0)).toBe(40 * block.length);
});

it("hears a reset while it is paused, and after the program's end", async () => {
  const ids = [1, 2];
  const { tcp, port } = start(() => ids.shift());
  const first = program(port);
  await event("connected");
  tcp.handle({ kind: "pause", id: 1 });
  first.socket.resetAndDestroy();
  expect(await event("closed")).toEqual({ kind: "closed", id: 1, inOrder: false });
  const second = program(port);
  await until(() => events.find((each) => each.kind === "connected" && each.id === 2));
  second.socket.end();
  await until(() => events.find((each) => each.kind === "ended" && each.id === 2));
  second.socket.resetAndDestroy();
  await until(() => events.find((each) => each.kind === "closed" && each.id === 2));
});

it("takes a thousand connections at once", async () => {
  let id = 0;
  const { tcp, port } = start(() => ++id);
  const programs = Array.from({ length: 1_000 }, () => program(port));
  await until(() => (events.filter(({ kind }) => kind === "connected").length === 1_000 ? true : undefined));
  for (let each = 1; each <= 1_000; each++) {
    tcp.handle({ kind: "write", id: each, bytes: new TextEncoder().encode("x") });
    tcp.handle({ kind: "end", id: each });
  }
  await until(() => (programs.every(({ received }) => received() === "x") ? true : undefined));
});

it("gives no more data while it is paused", async () => {
  const { tcp, port } = start(() => 9);
  const { socket } = program(port);
  await event("connected");
  tcp.handle({ kind: "pause", id: 9 });
  socket.write("held");
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(events.filter(({ kind }) => kind === "data")).toEqual([]);
  tcp.handle({ kind: "resume", id: 9 });
  await event("data");
});
