/**
 * A whole node between the internet, a peer that it trusts and that does what it likes, the beacon, the registry and its
 * own programs: any datagrams, any sealed packets of the peer, any packets of programs, any replies, in any order.
 */
import type { Endpoint } from "../../../src/base/endpoint.ts";
import { after, type Instant, instant, type WallClock } from "../../../src/base/instant.ts";
import { BeaconClient } from "../../../src/beacon/client.ts";
import { Engine } from "../../../src/engine/engine.ts";
import { RegistryClient } from "../../../src/registry/client.ts";
import { TrustBook } from "../../../src/trust/trust-book.ts";
import { PortableDataPlane } from "../../../src/tunnel/portable-data-plane.ts";
import { DEFAULT_OVERLAY_PREFIX, encodeAddressBytes } from "../../../src/wire/address.ts";
import { networkId, nodeId } from "../../../src/wire/ids.ts";
import { encodeVirtualPacket, PORT } from "../../../src/wire/virtual-packet.ts";
import { whole } from "../../helpers/inner-packets.ts";
import { cheapCrypto } from "../cheap-crypto.ts";
import { demand, FuzzInput, textOf } from "../input.ts";

const WALL = 1_900_000_000_000 as WallClock;
const BEACON: Endpoint = { address: "192.0.2.1", port: 9001 };
const PLACES = [1, 2, 3].map((n): Endpoint => ({ address: `198.51.100.${n}`, port: 4000 }));
const MAX_STEPS = 48;
const ICMPV6 = 58;

export function fuzz(data: Uint8Array): void {
  const input = new FuzzInput(data);
  const crypto = cheapCrypto();
  const [own, peer] = [1, 2].map((n) => new FuzzNode(n, crypto)) as [FuzzNode, FuzzNode];
  for (const node of [own, peer]) node.begin([own, peer]);
  const world = new World(own, peer);
  world.pass(0);
  for (let steps = 0; steps < MAX_STEPS && !input.isEmpty; steps++) step(world, input);
  demand(own.engine.counters().staged <= 4_096 && own.engine.counters().flows <= 65_536, "what is held is bounded");
  own.engine.close();
}

function step(world: World, input: FuzzInput): void {
  const { own, peer } = world;
  switch (input.below(8)) {
    case 0:
      return world.arrive(input.pick(PLACES), input.block());
    case 1:
      return world.arrive(BEACON, input.block());
    case 2:
      own.send(input.block(), world.now);
      break;
    case 3:
      peer.send(input.block(), world.now);
      break;
    case 4:
      return world.pass(input.u16() * 4);
    case 5:
      own.client.handleReply(textOf(input.block()), world.now);
      own.engine.handleRegistry(world.now);
      break;
    case 6:
      return world.lose(input.u8());
    default:
      // Sealed by the peer: what is in it is the peer's own choice.
      peer.engine.link(own.node)?.sendVirtual(virtualPacket(input), true);
  }
  world.settle();
}

function virtualPacket(input: FuzzInput): Uint8Array {
  const port = input.pick([PORT.BRIDGE, PORT.HANDSHAKE, PORT.ECHO, 80]);
  return encodeVirtualPacket({
    flags: input.u8() & 15,
    protocol: input.pick([1, 2, 3, 2]),
    source: { network: networkId(0), node: nodeId(2) },
    destination: { network: networkId(0), node: nodeId(1) },
    sourcePort: port,
    destinationPort: port,
    sequence: input.u32(),
    acknowledgement: input.u32(),
    window: input.u16(),
    payload: input.block(),
  });
}

class World {
  readonly own: FuzzNode;
  readonly peer: FuzzNode;
  now: Instant = instant(1_000);
  /** Datagrams the underlay loses of the next eight, a bit each. */
  #lost = 0;

  constructor(own: FuzzNode, peer: FuzzNode) {
    this.own = own;
    this.peer = peer;
  }

  arrive(from: Endpoint, bytes: Uint8Array): void {
    this.own.receive(from, bytes, this.now);
    this.settle();
  }

  lose(mask: number): void {
    this.#lost = mask;
  }

  pass(ms: number): void {
    const end = after(this.now, ms);
    for (let turns = 0; turns < 200; turns++) {
      const next = Math.min(this.own.deadline(), this.peer.deadline());
      if (next > end) break;
      this.now = Math.max(this.now, next) as Instant;
      this.own.wake(this.now);
      this.peer.wake(this.now);
      this.settle();
    }
    this.now = end;
    this.settle();
  }

  /** Carries what both have to say until both are silent. */
  settle(): void {
    for (let turns = 0; turns < 100; turns++) {
      const sent = [...this.#carry(this.own, this.peer), ...this.#carry(this.peer, this.own)];
      if (sent.length === 0) return;
    }
    throw new Error("two nodes answer each other for ever");
  }

  #carry(from: FuzzNode, to: FuzzNode): Uint8Array[] {
    const sent = from.drain(this.now).filter((out) => out.to.address === to.endpoint.address);
    for (const { bytes } of sent) {
      const isLost = (this.#lost & 1) === 1;
      this.#lost >>>= 1;
      if (!isLost) to.receive(from.endpoint, bytes, this.now);
    }
    return sent.map(({ bytes }) => bytes);
  }
}

class FuzzNode {
  readonly node;
  readonly endpoint: Endpoint;
  readonly client: RegistryClient;
  readonly plane = new PortableDataPlane();
  engine!: Engine;
  readonly #crypto: ReturnType<typeof cheapCrypto>;
  readonly #identity: { readonly seed: Uint8Array; readonly publicKey: Uint8Array };

  constructor(number: number, crypto: ReturnType<typeof cheapCrypto>) {
    this.node = nodeId(number);
    this.endpoint = PLACES[number - 1]!;
    this.#crypto = crypto;
    const seed = new Uint8Array(32).fill(number);
    this.#identity = { seed, publicKey: crypto.ed25519PublicKey(seed) };
    const listen = { port: this.endpoint.port, lan: [] };
    this.client = new RegistryClient({ crypto, identity: this.#identity, listen, isPublic: false });
  }

  begin(all: readonly FuzzNode[]): void {
    const now = instant(0);
    const others = all.filter((other) => other !== this);
    this.engine = new Engine(
      {
        ...{ prefix: DEFAULT_OVERLAY_PREFIX, node: this.node, mtuBytes: 1360, listenPort: 4000 },
        ...this.#identity,
        allowLegacyKeys: false,
        beaconEndpoint: BEACON,
        endpoints: new Map(others.map((other) => [other.node, other.endpoint])),
      },
      {
        crypto: this.#crypto,
        dataPlane: this.plane,
        registry: this.client,
        beacon: new BeaconClient(this.node, now, {
          publicKey: this.#identity.publicKey,
          rendezvous: () => this.client.rendezvous,
          sign: (text) => this.#crypto.ed25519Sign(this.#identity.seed, new TextEncoder().encode(text)),
        }),
        trust: bookWith(others),
      },
      now,
      WALL,
    );
    this.client.handleConnecting(now);
    this.client.handleConnected(now);
  }

  get key(): Uint8Array {
    return this.#identity.publicKey;
  }

  deadline(): number {
    return Math.min(this.engine.pollTimeout()?.at ?? Infinity, this.client.pollTimeout()?.at ?? Infinity);
  }

  wake(now: Instant): void {
    this.client.handleTimeout(now);
    this.engine.handleTimeout(now);
  }

  send(packet: Uint8Array, now: Instant): void {
    const count = this.plane.pushTunPackets([whole(packet)]);
    this.engine.handleTunBatch(count, now);
    this.plane.sealAndSend(count);
  }

  receive(from: Endpoint, bytes: Uint8Array, now: Instant): void {
    const count = this.plane.receive([{ from, bytes: bytes.slice() }]);
    this.engine.handleUdpBatch(count, now);
    this.plane.writeTun(count);
  }

  drain(now: Instant): { to: Endpoint; bytes: Uint8Array }[] {
    const out: { to: Endpoint; bytes: Uint8Array }[] = [];
    for (let next = this.engine.pollTransmit(); next !== undefined; next = this.engine.pollTransmit()) {
      out.push({ to: next.to, bytes: next.datagram });
    }
    this.engine.sendReleased();
    out.push(...this.plane.takeDatagrams());
    for (let packet = this.engine.pollTunPacket(); packet !== undefined; packet = this.engine.pollTunPacket()) {
      this.#checkPacket(packet);
    }
    for (const packet of this.plane.takeTunPackets()) this.#checkPacket(packet);
    for (let event = this.engine.pollEvent(); event !== undefined; event = this.engine.pollEvent()) {
      if (event.kind === "owner-wanted") this.engine.answerOwner(event.question.id, undefined, now);
    }
    while (this.client.pollRequest() !== undefined);
    const held = this.engine.takeHeld();
    demand(held.length === 0, "without a policy nothing waits for an owner");
    return out;
  }

  /** Whatever a peer or a stranger sends: programs see IPv6 packets for this node alone, from the peer or this node. */
  #checkPacket(packet: Uint8Array): void {
    demand(packet.length >= 40 && packet[0]! >>> 4 === 6, "the interface is given IPv6 packets", packet.length);
    const ours = addressOf(this.node);
    // An error of ours goes to whatever address the program wrote as its own.
    if (packet[6] === ICMPV6 && packet[40]! < 128 && sameAt(packet, 8, ours)) return;
    demand(sameAt(packet, 24, ours), "a packet is for this node", Buffer.from(packet.subarray(24, 40)).toString("hex"));
    const known = [ours, ...[1, 2].map((n) => addressOf(nodeId(n)))];
    demand(
      known.some((address) => sameAt(packet, 8, address)),
      "a packet comes from a trusted peer",
      Buffer.from(packet.subarray(8, 24)).toString("hex"),
    );
  }
}

function addressOf(node: ReturnType<typeof nodeId>): Uint8Array {
  return encodeAddressBytes(DEFAULT_OVERLAY_PREFIX, { network: networkId(0), node });
}

function sameAt(packet: Uint8Array, offset: number, address: Uint8Array): boolean {
  return address.every((byte, i) => packet[offset + i] === byte);
}

function bookWith(peers: readonly FuzzNode[]): TrustBook {
  const records = peers.map(({ node, key }) => ({
    ...{ node, state: "mutual", public_key: Buffer.from(key).toString("base64"), hostname: null },
    ...{ epoch: 1, since: WALL, ask_reason: "", request: null, revocation_untold: false },
  }));
  return TrustBook.fromJson({ version: 1, records })!;
}
