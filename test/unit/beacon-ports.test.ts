import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { afterEach, describe, expect, test } from "vitest";
import { concatBytes, toHex } from "../../src/base/bytes.ts";
import type { Endpoint } from "../../src/base/endpoint.ts";
import { type BeaconPort, BeaconSocket } from "../../src/daemon/beacon-socket.ts";
import { addressWords } from "../../src/daemon/endpoint-cache.ts";
import { NativeBeaconPort } from "../../src/daemon/native-beacon-port.ts";
import { NativeRelay, RELAY_ROW } from "../../src/io/native-relay.ts";
import { type BeaconOptions, BeaconServer, connectionEndpoint } from "../../src/rendezvous/beacon.ts";
import { encodeDiscover, encodeRelayPrefix } from "../../src/wire/beacon.ts";
import { nodeId } from "../../src/wire/ids.ts";

const KINDS = [
  ["node:dgram", (asked: Endpoint, server: BeaconServer) => new BeaconSocket(asked, server)],
  ["the shim", (asked: Endpoint, server: BeaconServer) => new NativeBeaconPort(asked, server)],
] as const;
const ends: (() => unknown)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

class Peer {
  readonly received: string[] = [];
  readonly socket: Socket;
  readonly #beacon: BeaconPort;

  private constructor(socket: Socket, beacon: BeaconPort) {
    this.socket = socket;
    this.#beacon = beacon;
    socket.on("message", (datagram) => this.received.push(toHex(new Uint8Array(datagram))));
    ends.push(() => socket.close());
  }

  static async open(beacon: BeaconPort, node: number, extended: boolean): Promise<Peer> {
    const ip6 = beacon.endpoint.address.includes(":");
    const socket = createSocket(ip6 ? "udp6" : "udp4").bind(0, ip6 ? "::1" : "127.0.0.1");
    await once(socket, "listening");
    const peer = new Peer(socket, beacon);
    peer.send(encodeDiscover(nodeId(node), extended));
    await peer.count(1);
    peer.received.length = 0;
    return peer;
  }

  send(datagram: Uint8Array): void {
    const { address, port } = this.#beacon.endpoint;
    this.socket.send(datagram, port, address);
  }

  async count(least: number): Promise<void> {
    for (let waited = 0; this.received.length < least && waited < 3000; waited += 5) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(this.received.length).toBeGreaterThanOrEqual(least);
  }
}

const relayed = (from: number, to: number, frame: Uint8Array) =>
  concatBytes(encodeRelayPrefix(nodeId(from), nodeId(to)), frame);

describe.each(KINDS)("the beacon by %s", (_, make) => {
  async function open(options: BeaconOptions = {}, address = "127.0.0.1"): Promise<BeaconPort> {
    const port = make({ address, port: 0 }, new BeaconServer(options));
    await port.bind();
    ends.push(() => port.close());
    return port;
  }

  test.each(["127.0.0.1", "::1"])(
    "answers, relays in both forms and keeps a sender's order, at %s",
    async (address) => {
      const beacon = await open({}, address);
      const plain = await Peer.open(beacon, 1, false);
      const extended = await Peer.open(beacon, 0x80000002, true);
      const frames = Array.from({ length: 100 }, (_, index) => Uint8Array.of(0x50, index, 7));
      for (const frame of frames) plain.send(relayed(1, 0x80000002, frame));
      for (const frame of frames) extended.send(relayed(0x80000002, 1, frame));
      await extended.count(100);
      await plain.count(100);
      expect(extended.received).toEqual(frames.map((frame) => `090000000180000002${toHex(frame)}`));
      expect(plain.received).toEqual(frames.map((frame) => `0680000002${toHex(frame)}`));
      expect(beacon.server.counters).toMatchObject({ relayed: 200, received: 202 });
    },
  );

  test("brings frames to a connection and from one", async () => {
    const beacon = await open();
    const peer = await Peer.open(beacon, 1, true);
    const connection = connectionEndpoint("192.0.2.1", 5);
    const sent: string[] = [];
    beacon.sendToConnection = (to, datagram) => sent.push(`${to.port} ${toHex(datagram)}`);
    beacon.handleDatagram(encodeDiscover(nodeId(2), false), connection);
    sent.length = 0;
    peer.send(relayed(1, 2, Uint8Array.of(0xab)));
    beacon.handleDatagram(relayed(2, 1, Uint8Array.of(0xcd)), connection);
    await peer.count(1);
    expect(peer.received).toEqual(["090000000200000001cd"]);
    for (let waited = 0; sent.length === 0 && waited < 2000; waited += 5) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(sent).toEqual([`${connection.port} 0600000001ab`]);
  });

  test("keeps to the limits and counts what it drops", async () => {
    const beacon = await open({ limits: { unprovenRelay: { perSecond: 0.001, burst: 3 } } });
    const peer = await Peer.open(beacon, 1, false);
    for (let i = 0; i < 10; i++) peer.send(relayed(1, 1, Uint8Array.of(i)));
    await peer.count(3);
    for (let waited = 0; beacon.server.counters.received < 11 && waited < 2000; waited += 5) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(beacon.server.counters).toMatchObject({ relayed: 3, limitedFrames: 7 });
    const queue = { queuedBytes: 0, queuedFrames: 0, queuedFlows: 0, queueFull: 0 };
    expect(beacon.stats()).toEqual({ ...queue, overflowKnown: 0, overflowStrangers: 0 });
  });
});

describe("runs that the system joined", () => {
  /** Sends datagrams of `segment` bytes as one message, as a tunnel does with its bulk. */
  function sendRun(sender: NativeRelay, bytes: Uint8Array, segment: number, to: Endpoint): void {
    const slot = sender.takeSlot()!;
    sender.arena.set(bytes, slot * 65_536);
    sender.rows.fill(0, 0, 12);
    sender.rows[RELAY_ROW.OFFSET] = slot * 65_536;
    sender.rows[RELAY_ROW.LENGTH] = bytes.length;
    sender.rows[RELAY_ROW.SEGMENT] = segment;
    sender.rows.set(addressWords(to), RELAY_ROW.ADDRESS);
    sender.rows[RELAY_ROW.PORT] = to.port;
    expect(sender.send(1)).toBe(1);
    sender.release(slot);
  }

  test.each([false, true])(
    "are relayed frame by frame, also to two destinations in turn (extended: %s)",
    async (extended) => {
      const beacon = new NativeBeaconPort({ address: "127.0.0.1", port: 0 }, new BeaconServer());
      await beacon.bind();
      ends.push(() => beacon.close());
      const first = await Peer.open(beacon, 1, extended);
      const second = await Peer.open(beacon, 2, extended);
      const sender = new NativeRelay();
      sender.open({ address: "127.0.0.1", port: 0 }, () => {});
      ends.push(() => sender.close());
      const frame = (index: number, length: number) => new Uint8Array(length).fill(index);
      const datagrams: Uint8Array[] = [];
      for (let index = 0; index < 40; index++)
        datagrams.push(relayed(9, index < 20 || index % 2 === 0 ? 1 : 2, frame(index, 1200)));
      datagrams.push(relayed(9, 2, frame(40, 17)));
      sendRun(sender, concatBytes(...datagrams), 1209, beacon.endpoint);
      await first.count(30);
      await second.count(11);
      const prefix = (to: number) => (extended ? `09000000090000000${to}` : "0600000009");
      const expected = (to: number) =>
        Array.from({ length: 41 }, (_, index) => index)
          .filter((index) => (index < 20 || (index % 2 === 0 && index < 40) ? 1 : 2) === to)
          .map((index) => prefix(to) + toHex(frame(index, index === 40 ? 17 : 1200)));
      expect(first.received).toEqual(expected(1));
      expect(second.received).toEqual(expected(2));
      expect(beacon.server.counters).toMatchObject({ relayed: 41 });
    },
  );

  test("never run out of slots, however many were dropped, refused or sent", async () => {
    const beacon = new NativeBeaconPort({ address: "127.0.0.1", port: 0 }, new BeaconServer());
    await beacon.bind();
    ends.push(() => beacon.close());
    const peer = await Peer.open(beacon, 1, true);
    const sender = new NativeRelay();
    sender.open({ address: "127.0.0.1", port: 0 }, () => {});
    ends.push(() => sender.close());
    const known = concatBytes(...Array.from({ length: 30 }, () => relayed(9, 1, new Uint8Array(1000))));
    const unknown = concatBytes(...Array.from({ length: 30 }, () => relayed(9, 77, new Uint8Array(1000))));
    for (let round = 0; round < 60; round++) {
      for (let i = 0; i < 10; i++) sendRun(sender, i % 2 === 0 ? known : unknown, 1009, beacon.endpoint);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    peer.send(relayed(1, 1, Uint8Array.of(0xee)));
    // What was relayed before may still be arriving: the last frame must come, not come alone.
    const deadline = performance.now() + 5_000;
    while (!peer.received.includes("090000000100000001ee") && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(peer.received).toContain("090000000100000001ee");
    expect(beacon.server.counters.relayed).toBeGreaterThan(1000);
  });
});
