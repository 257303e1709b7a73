/**
 * Two pilot-tun nodes agree on keys inside a session that they have: Noise KK (noise.ts) between the X25519 halves of the
 * identities that both have pinned. Here is what is said and what comes of it; when to begin and to repeat is decided in
 * rekeying.ts. docs/bridge-protocol.md tells what it is good for.
 *
 * At most one handshake of ours is open, and one answer of ours is kept to be repeated. When both sides begin in the same
 * session the one with the lower number goes on, and the other answers.
 */
import { concatBytes, equalBytes, utf8, writeU16, writeU32 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { NodeId } from "../wire/ids.ts";
import { NoiseHandshake, type NoiseKeys } from "./noise.ts";
import type { Session } from "./session.ts";

export interface AgreedKeys extends NoiseKeys {
  /** Of the nonces in each direction; both sides know both, so they tell sessions apart. */
  readonly sendPrefix: Uint8Array;
  readonly receivePrefix: Uint8Array;
  /** Of the session that these make. */
  readonly binding: Uint8Array;
  /** This side began. */
  readonly isOurs: boolean;
}

export type FirstOutcome =
  /** Send this under the session that the message came in; `keys` when it is the first time. */
  | { readonly answer: Uint8Array; readonly keys: AgreedKeys | undefined }
  /** Ours goes on instead. */
  | "ours"
  | "bad";

export class Agreement {
  readonly #crypto: Crypto;
  readonly #local: NodeId;
  readonly #peer: NodeId;
  readonly #peerIdentity: Uint8Array;
  /** The X25519 half of it; undefined for bytes that are no key. */
  #peerStatic: Uint8Array | undefined;
  #ours: { readonly session: Session; readonly handshake: NoiseHandshake; readonly first: Uint8Array } | undefined;
  #answered: { readonly session: Session; readonly first: Uint8Array; readonly answer: Uint8Array } | undefined;

  constructor(crypto: Crypto, local: NodeId, peer: NodeId, peerIdentity: Uint8Array) {
    this.#crypto = crypto;
    this.#local = local;
    this.#peer = peer;
    this.#peerIdentity = peerIdentity;
  }

  /** The session that our handshake is about, while it is open. */
  get openIn(): Session | undefined {
    return this.#ours?.session;
  }

  /** Our first message, to be said under the session and repeated as it is; undefined: nothing can be agreed on. */
  begin(session: Session): Uint8Array | undefined {
    this.giveUp();
    const handshake = this.#handshake(session, true);
    const first = handshake?.writeMessage(NO_PAYLOAD);
    if (handshake === undefined || first === undefined) return undefined;
    this.#ours = { session, handshake, first };
    return first;
  }

  get first(): Uint8Array | undefined {
    return this.#ours?.first;
  }

  /** True when this very message was answered before: to answer it again costs nothing. */
  knows(session: Session, first: Uint8Array): boolean {
    return this.#answered?.session === session && equalBytes(this.#answered.first, first);
  }

  handleFirst(session: Session, first: Uint8Array): FirstOutcome {
    if (this.knows(session, first)) return { answer: this.#answered!.answer, keys: undefined };
    if (this.#ours?.session === session && this.#local < this.#peer) return "ours";
    const handshake = this.#handshake(session, false);
    const heard = handshake?.readMessage(first);
    const answer = heard && handshake?.writeMessage(NO_PAYLOAD);
    const keys = answer && handshake?.split();
    if (answer === undefined || keys === undefined) {
      handshake?.wipe();
      return "bad";
    }
    this.giveUp();
    this.#answered = { session, first: first.slice(), answer };
    return { answer, keys: this.#agreed(keys, false) };
  }

  /** The peer's answer to our first message; undefined for anything else. */
  handleSecond(session: Session, second: Uint8Array): AgreedKeys | undefined {
    if (this.#ours?.session !== session || this.#ours.handshake.readMessage(second) === undefined) return undefined;
    const keys = this.#ours.handshake.split()!;
    this.#ours = undefined;
    return this.#agreed(keys, true);
  }

  /** Ours is open no more. */
  giveUp(): void {
    this.#ours?.handshake.wipe();
    this.#ours = undefined;
  }

  /** Nothing of what was said counts any more. */
  reset(): void {
    this.giveUp();
    this.#answered = undefined;
  }

  #handshake(session: Session, isOurs: boolean): NoiseHandshake | undefined {
    this.#peerStatic ??= this.#crypto.x25519OfIdentity(this.#peerIdentity);
    if (this.#peerStatic === undefined) return undefined;
    const own = this.#party(this.#local, session.own.identityKey);
    const peer = this.#party(this.#peer, this.#peerIdentity);
    const parties = isOurs ? [own, peer] : [peer, own];
    return new NoiseHandshake(this.#crypto, {
      role: isOurs ? "initiator" : "responder",
      prologue: concatBytes(LABEL, ...parties, session.binding),
      s: session.own.keys,
      rs: this.#peerStatic,
    });
  }

  /** A whole address and the whole identity: its X25519 half has two of them. */
  #party(node: NodeId, identityKey: Uint8Array): Uint8Array {
    const address = new Uint8Array(6);
    writeU16(address, 0, BACKBONE_NETWORK);
    writeU32(address, 2, node);
    return concatBytes(address, identityKey);
  }

  #agreed(keys: NoiseKeys, isOurs: boolean): AgreedKeys {
    const prefixes = this.#crypto.hkdfSha256(keys.handshakeHash, PREFIX_INFO, 8);
    const [first, second] = [prefixes.slice(0, 4), prefixes.slice(4)];
    const [sendPrefix, receivePrefix] = isOurs ? [first, second] : [second, first];
    return { ...keys, sendPrefix, receivePrefix, binding: keys.handshakeHash.slice(), isOurs };
  }
}

const NO_PAYLOAD = new Uint8Array(0);
const LABEL = utf8("pilot-tun/session-1");
const PREFIX_INFO = utf8("pilot-tun/nonce-prefixes");
/** Nodes talk in it whatever networks they share. */
const BACKBONE_NETWORK = 0;
