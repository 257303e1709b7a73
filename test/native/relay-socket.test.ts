/** The relay's sockets on the loopback interface: what becomes of others when one source sends more than is read. */
import { createSocket, type Socket } from "node:dgram";
import { afterEach, expect, test } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { NativeRelay, RELAY_GROUP, RELAY_ROW, RELAY_ROW_WORDS, type RelayGroup } from "../../src/io/native-relay.ts";
import { KnownSources } from "../../src/rendezvous/known-sources.ts";
import { sortingProgram } from "../../src/rendezvous/source-sorting.ts";

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

/** Everything that waits in a group: the first byte of each datagram, in the order in which it was read. */
async function readAll(relay: NativeRelay, group: RelayGroup = RELAY_GROUP.SECOND): Promise<number[]> {
  await new Promise((resolve) => setTimeout(resolve, 50)); // the event loop tells the relay which sockets have something
  const marks: number[] = [];
  for (let rows = relay.receive(group); rows > 0; rows = relay.receive(group)) {
    for (let at = 0; at < rows * RELAY_ROW_WORDS; at += RELAY_ROW_WORDS) {
      marks.push(relay.arena[relay.rows[at + RELAY_ROW.OFFSET]!]!);
      relay.release(relay.rows[at + RELAY_ROW.SLOT]!);
    }
  }
  return marks;
}

const SECRET = Math.floor(Math.random() * 2 ** 32);

/** A relay that has all sources for strangers but these. */
function openRelay(known: readonly string[] = [], address = "0.0.0.0"): NativeRelay {
  const relay = new NativeRelay();
  relay.open({ address, port: 0 }, () => {});
  undo.push(() => relay.close());
  sortFor(relay, known);
  return relay;
}

function sortFor(relay: NativeRelay, known: readonly string[]): void {
  const sources = new KnownSources();
  for (const address of known) sources.noteProof(address, instant(0));
  expect(relay.sort(sortingProgram(sources.table(SECRET, instant(1)), SECRET)), `secret ${SECRET}`).toBe(true);
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

test("known sources lose nothing while made-up ones send more than is read, and what those lose is counted", async () => {
  const known = Array.from({ length: 100 }, (_, index) => `127.0.1.${index + 1}`);
  const relay = openRelay(known);
  const strangers = await Promise.all(Array.from({ length: 64 }, (_, index) => sender(`127.0.2.${index + 1}`)));
  const friends = await Promise.all(known.map(sender));
  const flood = new Uint8Array(400).fill(200);
  for (let sent = 0; sent < 30_000; sent++) {
    await send(strangers[sent % strangers.length]!, flood, relay.port);
    if (sent % 300 === 0) await send(friends[sent / 300]!, Uint8Array.of(sent / 300), relay.port);
  }
  const [heard, others] = [await readAll(relay, RELAY_GROUP.FIRST), await readAll(relay, RELAY_GROUP.SECOND)];
  // One in 160 strangers has the bit of a known source; of 64 that can be two or three, all of whose datagrams are there.
  expect(heard.filter((mark) => mark < 100).length, `secret ${SECRET}`).toBe(100);
  expect(heard.length).toBeLessThan(100 + 8 * 469);
  const lost = relay.overflow(RELAY_GROUP.SECOND);
  expect(lost).toBeGreaterThan(1_000);
  expect(heard.length + others.length + lost).toBe(30_100);
  expect(relay.overflow(RELAY_GROUP.FIRST)).toBe(0);
});

test("a source is known from the moment in which the system was told, over IPv6 too, and thousands of them can be", async () => {
  const relay = openRelay([], "::");
  const over6 = createSocket("udp6").bind(0, "::1");
  undo.push(() => over6.close());
  const over4 = await sender("127.0.0.2");
  const both = async (): Promise<number[]> => {
    await new Promise<void>((resolve) => over6.send(Uint8Array.of(6), relay.port, "::1", () => resolve()));
    await send(over4, Uint8Array.of(4), relay.port);
    return (await readAll(relay, RELAY_GROUP.FIRST)).sort();
  };
  expect(await both()).toEqual([]);
  sortFor(relay, ["::1", "127.0.0.2"]);
  expect(await both()).toEqual([4, 6]);
  const many = Array.from({ length: 20_000 }, (_, index) => `10.1.${index >> 8}.${index & 255}`);
  sortFor(relay, [...many, "::1", "127.0.0.2"]);
  expect(await both()).toEqual([4, 6]);
});
