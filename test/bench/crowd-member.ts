/**
 * As little of a pilot-tun node as another one needs to keep a session with it: answers key exchanges, agrees on keys, says
 * hello, answers pings. Thousands fit into one process, which whole engines would not.
 */
import { concatBytes, equalBytes } from "../../src/base/bytes.ts";
import type { Crypto } from "../../src/base/crypto.ts";
import { type Instant, instant } from "../../src/base/instant.ts";
import { Agreement } from "../../src/tunnel/agreement.ts";
import { KeyExchange, PILA_FLAG, pilaFlags } from "../../src/tunnel/key-exchange.ts";
import { encodeNonce, isSealedFrame } from "../../src/tunnel/portable-frame.ts";
import type { Session } from "../../src/tunnel/session.ts";
import { BRIDGE_PORT, type BridgeMessage, bridgePacket, FEATURE, parseBridgeMessage } from "../../src/wire/bridge.ts";
import { encodePilsHeader, type Pila, parsePila, parsePils } from "../../src/wire/frame.ts";
import type { NodeId } from "../../src/wire/ids.ts";
import { encodeVirtualPacket, FLAG, PROTOCOL, parseVirtualPacket } from "../../src/wire/virtual-packet.ts";

export interface Self {
  readonly node: NodeId;
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
}

interface Keys {
  readonly session: Session;
  readonly send: Uint8Array;
  readonly receive: Uint8Array;
  readonly sendPrefix: Uint8Array;
  counter: number;
}

export class CrowdMember {
  readonly #crypto: Crypto;
  readonly #self: Self;
  readonly #peer: NodeId;
  readonly #agreement: Agreement;
  #exchange: KeyExchange | undefined;
  /** Of the exchange, and agreed on inside it. */
  #base: Keys | undefined;
  #noise: Keys | undefined;

  constructor(crypto: Crypto, self: Self, peer: Pick<Self, "node" | "publicKey">) {
    this.#crypto = crypto;
    this.#self = self;
    this.#peer = peer.node;
    this.#agreement = new Agreement(crypto, self.node, peer.node, peer.publicKey);
  }

  /** Keys of the session were agreed on. */
  get isSettled(): boolean {
    return this.#noise !== undefined;
  }

  /** What to send back. */
  handle(datagram: Uint8Array): Uint8Array[] {
    const pila = parsePila(datagram);
    if (pila !== undefined) return this.#handleExchange(pila);
    return isSealedFrame(datagram) ? this.#handleFrame(datagram) : [];
  }

  #handleExchange(pila: Pila): Uint8Array[] {
    if (this.#base === undefined || !equalBytes(this.#base.session.peerExchangeKey, pila.exchangeKey)) {
      this.#exchange = new KeyExchange(this.#crypto, this.#self, this.#peer);
      this.#install(this.#exchange, pila.exchangeKey);
    }
    return pilaFlags(pila.trailer) === PILA_FLAG.ANSWER ? [] : [this.#exchange!.frame(PILA_FLAG.ANSWER)];
  }

  #install(exchange: KeyExchange, peerExchangeKey: Uint8Array): void {
    const keys = exchange.deriveKeys(peerExchangeKey);
    if (keys === undefined) return;
    const sendPrefix = this.#crypto.randomBytes(4);
    sendPrefix[0] = this.#self.node > this.#peer ? sendPrefix[0]! | 0x80 : sendPrefix[0]! & 0x7f;
    const session: Session = {
      ...{ level: "base", peerExchangeKey, binding: keys.binding, own: exchange.ownHalf(), isOurs: false },
      ...{ keySlot: 0, legacySlot: undefined, installedAt: START, sendSlot: 0, lastOpenedAt: undefined },
    };
    this.#base = { session, send: keys.current, receive: keys.current, sendPrefix, counter: 1 };
    this.#noise = undefined;
    this.#agreement.reset();
  }

  #handleFrame(datagram: Uint8Array): Uint8Array[] {
    const { nonce, sealed } = parsePils(datagram)!;
    for (const keys of [this.#noise, this.#base]) {
      const plain = keys && this.#crypto.openAesGcm(keys.receive, nonce, datagram.subarray(4, 8), sealed);
      if (keys === undefined || plain === undefined) continue;
      const packet = parseVirtualPacket(plain);
      if (packet === undefined) return [];
      if (packet.protocol === PROTOCOL.CONTROL && (packet.flags & FLAG.ACK) === 0) {
        return [this.#seal(keys, encodeVirtualPacket(pongOf(packet)))];
      }
      return packet.destinationPort === BRIDGE_PORT ? this.#handleMessage(packet.payload, keys) : [];
    }
    return [];
  }

  #handleMessage(payload: Uint8Array, keys: Keys): Uint8Array[] {
    const message = parseBridgeMessage(payload);
    if (message?.kind === "hello") return [this.#say(HELLO, keys)];
    if (message?.kind !== "agree") return [];
    const outcome = this.#agreement.handleFirst(keys.session, message.noise);
    if (outcome === "bad" || outcome === "ours") return [];
    const answer = this.#say({ kind: "agreed", noise: outcome.answer }, keys);
    if (outcome.keys !== undefined) {
      const { send, receive, sendPrefix, binding } = outcome.keys;
      this.#noise = { session: { ...keys.session, level: "noise", binding }, send, receive, sendPrefix, counter: 1 };
    }
    return [answer];
  }

  #say(message: BridgeMessage, keys: Keys): Uint8Array {
    return this.#seal(keys, bridgePacket(this.#self.node, this.#peer, message));
  }

  #seal(keys: Keys, virtualPacket: Uint8Array): Uint8Array {
    const nonce = encodeNonce(keys.sendPrefix, keys.counter++);
    const header = encodePilsHeader({ sender: this.#self.node, nonce });
    return concatBytes(header, this.#crypto.sealAesGcm(keys.send, nonce, header.subarray(4, 8), virtualPacket));
  }
}

function pongOf(packet: NonNullable<ReturnType<typeof parseVirtualPacket>>) {
  return {
    ...packet,
    flags: FLAG.ACK,
    source: packet.destination,
    destination: packet.source,
    sourcePort: 0,
    destinationPort: packet.sourcePort,
    acknowledgement: (packet.sequence + 1) >>> 0,
  };
}

const START: Instant = instant(0);
const HELLO: BridgeMessage = {
  kind: "hello-ack",
  consents: true,
  features: FEATURE.AGREES,
  mtu: 1_360,
  instance: new Uint8Array(8),
  epoch: 0,
};
