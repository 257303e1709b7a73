import { createSocket } from "node:dgram";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { concatBytes, fromHex, toHex } from "../../src/base/bytes.ts";
import type { PilotError } from "../../src/base/pilot-error.ts";
import { type Rendezvous, type RendezvousOptions, runRendezvous } from "../../src/daemon/rendezvous.ts";
import { FrameServer } from "../../src/io/frame-server.ts";
import { DATABASE_FILE, SqliteStore } from "../../src/io/sqlite-store.ts";
import { encodeDiscover } from "../../src/wire/beacon.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { encodeRegistryFrame } from "../../src/wire/registry.ts";
import { BINARY_PREAMBLE } from "../../src/wire/registry-binary.ts";
import { Caller, RegistryLab } from "../helpers/registry-caller.ts";
import { RegistrySocket } from "../helpers/registry-socket.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const ANY = { address: "127.0.0.1", port: 0 };
let stateDir: string;
let started: Rendezvous[];

beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), "rendezvous-"));
  started = [];
});

afterEach(async () => {
  for (const rendezvous of started) await rendezvous.close();
  rmSync(stateDir, { recursive: true, force: true });
});

async function run(options: Partial<RendezvousOptions> = {}): Promise<Rendezvous> {
  const rendezvous = await runRendezvous({ registry: ANY, beacon: ANY, stateDir, ...options });
  started.push(rendezvous);
  return rendezvous;
}

async function problemOf(start: Promise<unknown>): Promise<PilotError> {
  return await start.then(
    () => expect.unreachable("it started"),
    (error) => error as PilotError,
  );
}

const identity = (seed: number) => new Caller(new RegistryLab(), seed);
const registration = (seed: number) => ({
  type: "register",
  listen_addr: "0.0.0.0:4000",
  public_key: identity(seed).key,
});

describe("registry over TCP", () => {
  test("serves requests in order, and a restart gives the same key the same number", async () => {
    const first = await run();
    const socket = await RegistrySocket.open(first.registry.port);
    expect(await socket.ask(registration(1))).toMatchObject({ node_id: 1, observed_addr: "127.0.0.1:4000" });
    const replies = await Promise.all([2, 3, 4].map((seed) => socket.ask(registration(seed))));
    expect(replies.map((reply) => reply?.["node_id"])).toEqual([2, 3, 4]);
    expect(first.stats()).toMatchObject({ nodes: 4, connections: 1, requests: 4 });
    await first.close();
    const second = await run();
    const again = await RegistrySocket.open(second.registry.port);
    expect(await again.ask(registration(3))).toMatchObject({ node_id: 3, address: "0:0000.0000.0003" });
    again.close();
  });

  test("a client that closes its side right after asking still gets its reply", async () => {
    const { registry } = await run();
    const socket = connect({ host: "127.0.0.1", port: registry.port });
    socket.end(encodeRegistryFrame(JSON.stringify(registration(1))));
    const chunks = await socket.toArray();
    expect(Buffer.concat(chunks).toString()).toContain('"node_id":1');
  });

  test("a client that closes its side gets its reply to everything it asked before, more than a turn takes", async () => {
    const { registry } = await run();
    const a = identity(1);
    const asked = [...Array(40)].map(() => ({ type: "heartbeat", node_id: 1, signature: a.sign("heartbeat:1") }));
    const socket = connect({ host: "127.0.0.1", port: registry.port });
    const frames = [registration(1), ...asked].map((request) => encodeRegistryFrame(JSON.stringify(request)));
    socket.end(concatBytes(...frames));
    const text = Buffer.concat(await socket.toArray()).toString();
    expect(text.split("heartbeat_ok")).toHaveLength(41);
  });

  test("speaks the binary protocol after its preamble", async () => {
    const { registry } = await run();
    const socket = await RegistrySocket.open(registry.port);
    socket.socket.write(BINARY_PREAMBLE);
    const json = new TextEncoder().encode(JSON.stringify(registration(1)));
    const frame = encodeRegistryFrame(`\0${new TextDecoder().decode(json)}`);
    expect((await socket.askFrame(frame))![0]).toBe(0);
    expect(toHex((await socket.askFrame(fromHex("000000050200000001")!))!).slice(0, 10)).toBe("8200000001");
    expect(toHex((await socket.askFrame(fromHex("000000050200000063")!))!).slice(0, 2)).toBe("ff");
    socket.close();
  });

  test("random bytes and oversized frames end their own connection and nothing else", async () => {
    const { registry } = await run();
    const witness = await RegistrySocket.open(registry.port);
    const seed = Math.floor(Math.random() * 2 ** 32);
    const random = seededBytes(seed);
    for (let i = 0; i < 50; i++) {
      const hostile = await RegistrySocket.open(registry.port);
      hostile.socket.write(
        i % 2 === 0 ? random(1 + ((i * 97) % 4000)) : concatBytes(fromHex("00400001")!, random(100)),
      );
      if (i % 2 === 1)
        await hostile.closed; // one byte above the limit
      else hostile.close();
    }
    expect(await witness.ask(registration(1)), `seed ${seed}`).toMatchObject({ node_id: 1 });
    expect(await witness.ask({ type: "no_such" })).toEqual({ type: "error", error: "request failed" });
    witness.close();
  });

  test("a frame that is not finished in time and a client that reads nothing are cut", async () => {
    const { registry } = await run({ connectionLimits: { frameMs: 150 } });
    const slow = await RegistrySocket.open(registry.port);
    slow.socket.write(fromHex("00000064")!);
    const trickle = setInterval(() => slow.socket.write("x"), 20);
    await slow.closed;
    clearInterval(trickle);

    const deaf = connect({ host: "127.0.0.1", port: registry.port });
    deaf.on("error", () => {});
    deaf.pause();
    const closed = new Promise((resolve) => deaf.once("close", resolve));
    const many = Buffer.concat(Array.from({ length: 5000 }, () => encodeRegistryFrame('{"type":"list_networks"}')));
    const flood = setInterval(() => deaf.writableNeedDrain || deaf.write(many), 1);
    const witness = await RegistrySocket.open(registry.port);
    expect(await witness.ask(registration(1))).toMatchObject({ node_id: 1 });
    await closed;
    clearInterval(flood);
    witness.close();
  });

  test("idle connections, and connections beyond the limits, are closed", async () => {
    const { registry } = await run({ connectionLimits: { idleMs: 200, maxConnectionsPerSource: 2 } });
    const kept = [await RegistrySocket.open(registry.port), await RegistrySocket.open(registry.port)];
    const refused = await RegistrySocket.open(registry.port);
    await refused.closed;
    expect(await kept[0]!.ask(registration(1))).toMatchObject({ node_id: 1 });
    await Promise.all(kept.map((socket) => socket.closed));
    const later = await RegistrySocket.open(registry.port);
    expect(await later.ask(registration(1))).toMatchObject({ node_id: 1 });
    later.close();
  });

  test("unfinished frames of all clients together are bounded", async () => {
    const { registry } = await run({ connectionLimits: { maxUnfinishedBytes: 100_000 } });
    const hoarders = await Promise.all(Array.from({ length: 4 }, () => RegistrySocket.open(registry.port)));
    for (const hoarder of hoarders) {
      hoarder.socket.write(concatBytes(fromHex("00100000")!, new Uint8Array(40_000)));
    }
    await Promise.race(hoarders.map((hoarder) => hoarder.closed));
    const witness = await RegistrySocket.open(registry.port);
    expect(await witness.ask(registration(1))).toMatchObject({ node_id: 1 });
    for (const socket of [...hoarders, witness]) socket.close();
  });

  test("a source over its rate waits, and another connection of the same turn is not mixed up", async () => {
    const { registry } = await run({ registryLimits: { requests: { perSecond: 50, burst: 10 } } });
    const socket = await RegistrySocket.open(registry.port);
    const replies = await Promise.all(Array.from({ length: 12 }, () => socket.ask({ type: "beacon_list" })));
    expect(replies.map((reply) => reply!["type"])).toEqual([
      ...Array.from({ length: 10 }, () => "beacon_list_ok"),
      "error",
      "beacon_list_ok", // asked at the same time, answered after the wait
    ]);
    socket.close();
  });
});

test("what cannot be made durable is not answered", async () => {
  let isDiskFull = false;
  const server = new FrameServer({
    listen: ANY,
    maxFrameBytes: 100,
    openConversation: () => ({
      isThrottled: false,
      skipPreamble: () => 0,
      answer: (payload) => encodeRegistryFrame(`echo ${payload.length}`),
    }),
    mustSettle: () => true,
    settle: () => {
      if (isDiskFull) throw new Error("disk full");
    },
  });
  const { port } = await server.listen();
  const before = await RegistrySocket.open(port);
  expect(await before.askFrame(fromHex("00000001ff")!)).toBeDefined();
  isDiskFull = true;
  expect(await before.askFrame(fromHex("00000001ff")!)).toBeUndefined();
  isDiskFull = false;
  const after = await RegistrySocket.open(port);
  expect(await after.askFrame(fromHex("00000001ff")!)).toBeDefined();
  after.close();
  await server.close();
});

test("a reply that rests on nothing unsettled leaves at once", async () => {
  let settled = 0;
  const server = new FrameServer({
    listen: ANY,
    maxFrameBytes: 100,
    openConversation: () => ({
      isThrottled: false,
      skipPreamble: () => 0,
      answer: () => "é",
    }),
    mustSettle: () => false,
    settle: () => settled++,
  });
  const { port } = await server.listen();
  const socket = await RegistrySocket.open(port);
  expect(toHex((await socket.askFrame(fromHex("00000001ff")!))!)).toBe("c3a9");
  expect(settled).toBe(0);
  socket.close();
  await server.close();
});

test("however many requests wait, a turn of the event loop handles a few, and all are answered", async () => {
  let handled = 0;
  const server = new FrameServer({
    listen: ANY,
    maxFrameBytes: 100,
    openConversation: () => ({
      isThrottled: false,
      skipPreamble: () => 0,
      answer: () => `${handled++}`,
    }),
    mustSettle: () => false,
    settle: () => {},
  });
  const { port } = await server.listen();
  const sockets = Array.from({ length: 50 }, () => connect({ host: "127.0.0.1", port }));
  let [before, most, isOver] = [0, 0, false];
  const watch = (): void => {
    most = Math.max(most, handled - before);
    before = handled;
    if (!isOver) setImmediate(watch);
  };
  watch();
  const many = concatBytes(...Array.from({ length: 100 }, () => fromHex("00000001ff")!));
  const received = await Promise.all(
    sockets.map((socket) => {
      socket.end(many);
      return socket.toArray();
    }),
  );
  isOver = true;
  const replies = received.map((chunks) => Buffer.concat(chunks).toString("latin1").match(/\d+/g)!.map(Number));
  expect(replies.map((numbers) => numbers.length)).toEqual(sockets.map(() => 100));
  for (const numbers of replies) expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  expect(most).toBeGreaterThan(8);
  expect(most).toBeLessThanOrEqual(32);
  await server.close();
});

describe("beacon over UDP", () => {
  test("answers discovery, ignores garbage, and notifies a node that somebody asked", async () => {
    const { registry, beacon, ...rendezvous } = await run();
    const socket = await RegistrySocket.open(registry.port);
    await socket.ask(registration(1));
    await socket.ask(registration(2));
    const udp = createSocket("udp4");
    const received: string[] = [];
    udp.on("message", (datagram) => received.push(toHex(datagram)));
    await new Promise<void>((resolve) => udp.bind(0, "127.0.0.1", resolve));
    const random = seededBytes(11);
    for (let i = 0; i < 200; i++) udp.send(random(i % 40), beacon.port, "127.0.0.1");
    udp.send(encodeDiscover(nodeId(2), true), beacon.port, "127.0.0.1");
    const port = udp.address().port.toString(16).padStart(4, "0");
    await expect.poll(() => received).toContain(`02047f000001${port}`);
    expect(rendezvous.stats().beacon.malformed).toBeGreaterThan(100);

    const a = identity(1);
    await socket.ask({
      type: "request_handshake",
      from_node_id: 1,
      to_node_id: 2,
      justification: "",
      signature: a.sign("handshake:1:2"),
    });
    await expect.poll(() => received).toContain("0a01");
    udp.close();
    socket.close();
  });

  test("relays to nodes on a dual-stack socket", async () => {
    const { beacon } = await run({ beacon: { address: "::", port: 0 } });
    const [a, b] = [createSocket("udp4"), createSocket("udp6")];
    const received: string[] = [];
    for (const [name, socket] of Object.entries({ a, b })) {
      socket.on("message", (datagram) => received.push(name + toHex(datagram)));
    }
    a.send(encodeDiscover(nodeId(1), false), beacon.port, "127.0.0.1");
    b.send(encodeDiscover(nodeId(2), true), beacon.port, "::1");
    await expect.poll(() => received.length).toBe(2);
    a.send(fromHex("050000000100000002aabb")!, beacon.port, "127.0.0.1");
    b.send(fromHex("050000000200000001ccdd")!, beacon.port, "::1");
    await expect.poll(() => received).toContain("b090000000100000002aabb");
    await expect.poll(() => received).toContain("a0600000002ccdd");
    a.close();
    b.close();
  });
});

describe("a start that cannot succeed says why and what to do", () => {
  test("a taken TCP or UDP port, and nothing stays open behind it", async () => {
    const { registry, beacon } = await run();
    const otherDir = join(stateDir, "other");
    const tcp = await problemOf(run({ registry, stateDir: otherDir }));
    expect(tcp).toMatchObject({ code: "port_taken", message: expect.stringContaining("registry") });
    const udp = await problemOf(run({ beacon, stateDir: otherDir }));
    expect(udp).toMatchObject({ code: "port_taken", hint: expect.stringContaining("--beacon") });
    await run({ stateDir: otherDir });
  });

  test("an address that is not this machine's", async () => {
    const elsewhere = { address: "192.0.2.1", port: 0 };
    expect(await problemOf(run({ registry: elsewhere }))).toMatchObject({ code: "address_unusable" });
  });

  test("a state folder that cannot be made", async () => {
    const file = join(stateDir, "file");
    writeFileSync(file, "");
    expect(await problemOf(run({ stateDir: join(file, "below") }))).toMatchObject({ code: "state_unwritable" });
  });

  test("a database that another rendezvous has open", async () => {
    await run();
    expect(await problemOf(run())).toMatchObject({ code: "state_in_use" });
  });

  test.each([
    ["no database at all", (file: string) => writeFileSync(file, "x".repeat(5000))],
    ["cut short", (file: string) => truncateSync(file, 8000)],
    ["overwritten in the middle", (file: string) => scribble(file)],
  ])("a database file that is %s, and leaves it as it is", async (_name, damage) => {
    const store = SqliteStore.open(stateDir);
    const lab = new RegistryLab({ store });
    for (let seed = 1; seed <= 200; seed++) lab.join(seed, { hostname: `name-${seed}` });
    store.close();
    const file = join(stateDir, DATABASE_FILE);
    damage(file);
    const before = readFileSync(file);
    expect(await problemOf(run())).toMatchObject({ code: "database_damaged", hint: expect.stringContaining("backup") });
    expect(readFileSync(file).equals(before)).toBe(true);
  });
});

function scribble(file: string): void {
  const bytes = readFileSync(file);
  bytes.fill(0xaa, 4096 + 8, 3 * 4096);
  writeFileSync(file, bytes);
}
