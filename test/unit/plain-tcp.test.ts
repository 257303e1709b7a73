/** The daemon's sockets on loopback: what the kernel does becomes events, commands become what a program sees. */
import { connect, createServer, type Socket } from "node:net";
import { afterEach, expect, it } from "vitest";
import type { SocketEvent } from "../../src/engine/plain/socket-messages.ts";
import { PlainTcp } from "../../src/io/plain-tcp.ts";

const LOOPBACK = new Uint8Array(16);
LOOPBACK[15] = 1;

const events: SocketEvent[] = [];
const open: { close(): unknown }[] = [];

afterEach(() => {
  for (const each of open.splice(0)) each.close();
  events.length = 0;
});

async function start(accepted: (port: number) => number | undefined = () => undefined) {
  const tcp = new PlainTcp({
    accepted: (_address, port) => accepted(port),
    handleEvents: (batch) => void events.push(...batch),
  });
  open.push(tcp);
  return { tcp, port: await tcp.listen("::1") };
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
  const { port } = await start();
  expect(await program(port).error).toBe("ECONNRESET");
  expect(events).toEqual([]);
});

it("carries bytes both ways and ends each direction by itself", async () => {
  const { tcp, port } = await start(() => 7);
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
  const { tcp, port } = await start(() => ids.shift());
  const first = program(port);
  await event("connected");
  first.socket.resetAndDestroy();
  expect(await event("closed")).toEqual({ kind: "closed", id: 1, inOrder: false });
  const second = program(port);
  await until(() => events.find((each) => each.kind === "connected" && each.id === 2));
  tcp.handle({ kind: "reset", id: 2 });
  expect(await second.error).toBe("ECONNRESET");
});

it("connects from the port it is told, and says when nobody listens", async () => {
  const { tcp } = await start();
  const callers: (number | undefined)[] = [];
  const server = createServer((socket) => {
    callers.push(socket.remotePort);
    socket.on("error", () => undefined); // the end of the test resets it
  }).listen(0, "::1");
  open.push(server);
  await until(() => (server.listening ? true : undefined));
  const { port } = server.address() as { port: number };
  tcp.handle({ kind: "connect", id: 3, localPort: 61_234, remoteAddress: LOOPBACK, remotePort: port });
  expect(await event("connected")).toEqual({ kind: "connected", id: 3 });
  await until(() => callers[0]);
  expect(callers).toEqual([61_234]);
  tcp.handle({ kind: "connect", id: 4, localPort: 61_235, remoteAddress: LOOPBACK, remotePort: 1 });
  expect(await event("refused")).toEqual({ kind: "refused", id: 4 });
});

it("gives no more data while it is paused", async () => {
  const { tcp, port } = await start(() => 9);
  const { socket } = program(port);
  await event("connected");
  tcp.handle({ kind: "pause", id: 9 });
  socket.write("held");
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(events.filter(({ kind }) => kind === "data")).toEqual([]);
  tcp.handle({ kind: "resume", id: 9 });
  await event("data");
});
