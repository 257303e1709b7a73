/** The relay's sockets on the loopback interface: what becomes of others when one source sends more than is read. */
import { createSocket, type Socket } from "node:dgram";
import { afterEach, expect, test } from "vitest";
import { NativeRelay, RELAY_ROW, RELAY_ROW_WORDS } from "../../src/io/native-relay.ts";

let undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.reverse()) step();
  undo = [];
});

async function sender(address: string): Promise<Socket> {
  const socket = createSocket("udp4");
  undo.push(() => socket.close());
  await new Promise<void>((resolve) => socket.bind({ address, port: 0 }, resolve));
  return socket;
}

const send = (socket: Socket, bytes: Uint8Array, port: number): Promise<void> =>
  new Promise((resolve) => socket.send(bytes, port, "127.0.0.1", () => resolve()));

/** Everything that waits: the first byte of each datagram, in the order in which it was read. */
async function readAll(relay: NativeRelay): Promise<number[]> {
  await new Promise((resolve) => setTimeout(resolve, 50)); // the event loop tells the relay which sockets have something
  const marks: number[] = [];
  for (let rows = relay.receive(); rows > 0; rows = relay.receive()) {
    for (let at = 0; at < rows * RELAY_ROW_WORDS; at += RELAY_ROW_WORDS) {
      marks.push(relay.arena[relay.rows[at + RELAY_ROW.OFFSET]!]!);
      relay.release(relay.rows[at + RELAY_ROW.SLOT]!);
    }
  }
  return marks;
}

function openRelay(): NativeRelay {
  const relay = new NativeRelay();
  relay.open({ address: "0.0.0.0", port: 0 }, () => {});
  undo.push(() => relay.close());
  return relay;
}

test("a source that sends more than is read loses its own datagrams, and others neither lose theirs nor wait behind it", async () => {
  const relay = openRelay();
  const loud = await sender("127.0.0.2");
  const flood = new Uint8Array(1200).fill(1);
  for (let sent = 0; sent < 10_000; sent++) await send(loud, flood, relay.port);
  const quiet = Array.from({ length: 12 }, (_, index) => 10 + index);
  for (const mark of quiet) await send(await sender(`127.0.0.${mark}`), Uint8Array.of(mark), relay.port);
  const marks = await readAll(relay);
  const lost = 10_000 - marks.filter((mark) => mark === 1).length;
  expect(lost).toBeGreaterThan(1_000);
  // Of sixteen sockets one is flooded: five others in it by chance would be one run in a thousand.
  const heard = quiet.filter((mark) => marks.includes(mark));
  expect(heard.length).toBeGreaterThanOrEqual(8);
  const waited = heard.filter((mark) => marks.indexOf(mark) > 1_000);
  expect(waited.length).toBeLessThanOrEqual(4);
});

test("what one source sends, from several ports, comes in the order in which it was sent", async () => {
  const relay = openRelay();
  const sockets = [await sender("127.0.0.2"), await sender("127.0.0.2"), await sender("127.0.0.2")];
  const marks = Array.from({ length: 60 }, (_, index) => index + 1);
  for (const mark of marks) await send(sockets[mark % 3]!, Uint8Array.of(mark), relay.port);
  expect(await readAll(relay)).toEqual(marks);
});

test("a port that another socket has is refused, also to a second relay", () => {
  const first = openRelay();
  const second = new NativeRelay();
  expect(() => second.open({ address: "0.0.0.0", port: first.port }, () => {})).toThrow("EADDRINUSE");
});
