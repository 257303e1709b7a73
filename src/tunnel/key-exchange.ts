/**
 * PILA, the signed key exchange (pilot protocol §3.4–3.7), as functions: what we send, what we demand of what we
 * receive, and the keys that come of it. When to send is decided in `link.ts`.
 *
 * The signature covers the sender and its X25519 key only, neither receiver nor time: a PILA can be replayed by anybody.
 * So a PILA alone never moves an endpoint and never ends a working session (§11.2); see `link.ts`.
 */
import { concatBytes, equalBytes, readU32, utf8, writeU32 } from "../base/bytes.ts";
import type { Crypto, KeyPair } from "../base/crypto.ts";
import type { DropReason } from "../base/drop-reason.ts";
import { encodePila, type Pila, pilaSignatureInput } from "../wire/frame.ts";
import type { NodeId } from "../wire/ids.ts";
import { EXCHANGE_PROOF_BYTES } from "./exchange-proof.ts";
import type { OwnHalf } from "./session.ts";

/** Who we are. Read whenever it is used: a rotation replaces seed and key. */
export interface LocalIdentity {
  readonly node: NodeId;
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
}

/**
 * Trailer after the 136 bytes: uvarint capabilities (none), uvarint flags, the number of the node it is for (4 bytes), and
 * a tag (12 bytes, exchange-proof.ts). Receivers that do not know it ignore it. Without flags two nodes that hold the same
 * keys could answer each other for ever. Without the receiver a peer takes the exchange of another link of ours for its
 * own, when we look for that other node where the peer is, and puts keys to use that nobody answers under. With the tag it
 * is looked at before others. None of it is signed, and nothing that is received is believed because of it: taken away, or
 * wrong, it leaves what there is without it.
 */
export const PILA_FLAG = { REQUEST: 1, ANSWER: 2 } as const;
export type PilaFlag = (typeof PILA_FLAG)[keyof typeof PILA_FLAG];

/**
 * Our half of the exchange with one peer: an X25519 pair that nobody else sees and that is never written to disk. The
 * reference has one pair for all peers and its whole life (§3.5); one per link is the same on the wire, and once it is
 * wiped no recorded frame of that link opens again, be it for a thief or for a replay.
 */
export class KeyExchange {
  readonly #crypto: Crypto;
  readonly #local: LocalIdentity;
  readonly #peer: NodeId;
  /** Made when it is first needed: of thousands of peers, most are not spoken to. */
  #keys: KeyPair | undefined;
  #signature: Uint8Array | undefined;
  /** The identity key that it is by. */
  #signedBy: Uint8Array | undefined;

  constructor(crypto: Crypto, local: LocalIdentity, peer: NodeId) {
    this.#crypto = crypto;
    this.#local = local;
    this.#peer = peer;
  }

  /** There is a half of ours that the peer may have answered. */
  get isBegun(): boolean {
    return this.#keys !== undefined;
  }

  /** Our key in the exchange. */
  get publicKey(): Uint8Array {
    return this.#pair.publicKey;
  }

  get #pair(): KeyPair {
    this.#keys ??= this.#crypto.x25519KeyPair();
    return this.#keys;
  }

  /** `proof`: the tag for this key, if there can be one. */
  frame(flag: PilaFlag, proof: Uint8Array = NO_PROOF): Uint8Array {
    const trailer = new Uint8Array(TRAILER_BYTES);
    trailer[1] = flag;
    writeU32(trailer, RECEIVER, this.#peer);
    const { node: sender, publicKey: identityKey } = this.#local;
    const pila = encodePila({ sender, exchangeKey: this.publicKey, identityKey, signature: this.#sign() });
    return concatBytes(pila, trailer, proof);
  }

  #sign(): Uint8Array {
    const { node, seed, publicKey } = this.#local;
    if (this.#signature === undefined || this.#signedBy !== publicKey) {
      this.#signature = this.#crypto.ed25519Sign(seed, pilaSignatureInput(node, this.publicKey));
      this.#signedBy = publicKey;
    }
    return this.#signature;
  }

  /** What an agreement with the peer proves of us; to be wiped by whoever keeps it. */
  ownHalf(): OwnHalf {
    const { seed, publicKey: identityKey } = this.#local;
    const publicKey = this.#crypto.x25519OfIdentity(identityKey)!;
    return { keys: { privateKey: this.#crypto.x25519OfSeed(seed), publicKey }, identityKey };
  }

  /** Wipes the private key: no key can be derived any more. */
  wipe(): void {
    this.#keys?.privateKey.fill(0);
  }

  /** The cheap tests first: for us, and by the pinned key, before a signature is looked at (§11.21). */
  checkIdentity(pila: Pila, pinnedKey: Uint8Array): DropReason | undefined {
    if ((pilaReceiver(pila.trailer) ?? this.#local.node) !== this.#local.node) return "wrong-destination";
    return equalBytes(pila.identityKey, pinnedKey) ? undefined : "wrong-key";
  }

  checkSignature(pila: Pila): DropReason | undefined {
    const signed = pilaSignatureInput(pila.sender, pila.exchangeKey);
    return this.#crypto.ed25519Verify(pila.identityKey, signed, pila.signature) ? undefined : "bad-key-exchange";
  }

  /** Tunnel keys with this peer key; undefined for a low-order point. */
  deriveKeys(peerExchangeKey: Uint8Array): TunnelKeys | undefined {
    const shared = this.#crypto.x25519(this.#pair.privateKey, peerExchangeKey);
    if (shared === undefined) return undefined;
    const keys = {
      binding: this.#crypto.hkdfSha256(shared, BINDING_INFO, 32),
      current: this.#crypto.hkdfSha256(shared, HKDF_INFO, 32),
      legacy: this.#crypto.sha256(concatBytes(LEGACY_LABEL, shared)),
    };
    shared.fill(0);
    return keys;
  }
}

export interface TunnelKeys {
  /** What an agreement inside the session is bound to; no key. */
  readonly binding: Uint8Array;
  /** Generations G2 and G3: HKDF, with the sender authenticated. */
  readonly current: Uint8Array;
  /** Generation G1 (§3.4): a plain hash, no additional data. Only used behind the option that allows it. */
  readonly legacy: Uint8Array;
}

/** The flags of a PILA's trailer; 0 when there is none or it is not understood. */
export function pilaFlags(trailer: Uint8Array): number {
  const afterCapabilities = skipUvarint(trailer, 0);
  if (afterCapabilities === undefined || afterCapabilities >= trailer.length) return 0;
  const flags = trailer[afterCapabilities]!;
  return flags < 0x80 ? flags : 0;
}

/** The node that a PILA says it is for; undefined when its trailer does not say. */
function pilaReceiver(trailer: Uint8Array): number | undefined {
  const at = receiverOffset(trailer);
  return at === undefined || at + RECEIVER_BYTES > trailer.length ? undefined : readU32(trailer, at);
}

/** The tag at the end of a PILA's trailer, borrowed; undefined when there is none. */
export function pilaProof(trailer: Uint8Array): Uint8Array | undefined {
  const at = receiverOffset(trailer);
  const from = at === undefined ? trailer.length : at + RECEIVER_BYTES;
  return from + EXCHANGE_PROOF_BYTES > trailer.length ? undefined : trailer.subarray(from, from + EXCHANGE_PROOF_BYTES);
}

function receiverOffset(trailer: Uint8Array): number | undefined {
  const afterCapabilities = skipUvarint(trailer, 0);
  return afterCapabilities && skipUvarint(trailer, afterCapabilities);
}

function skipUvarint(bytes: Uint8Array, offset: number): number | undefined {
  for (let i = offset; i < bytes.length && i < offset + 10; i++) if (bytes[i]! < 0x80) return i + 1;
  return undefined;
}

const BINDING_INFO = utf8("pilot-tun/agreement");
const NO_PROOF = new Uint8Array(0);
const RECEIVER = 2;
const RECEIVER_BYTES = 4;
const TRAILER_BYTES = RECEIVER + RECEIVER_BYTES;
const HKDF_INFO = utf8("pilot-tunnel-v1");
const LEGACY_LABEL = utf8("pilot-tunnel-v1:");
