/**
 * What a key exchange carries so that its receiver need not check a signature to believe that the peer made it: a tag
 * (HMAC-SHA-256, RFC 2104, cut to 12 bytes) under what the two identity keys share. Anybody who knows a node's number and
 * public key can send exchanges in its name; only the two ends can make the tag, whatever address the datagram seems to
 * come from.
 *
 * It decides nothing but who is looked at first. An exchange without it, or with a wrong one, is judged by its signature
 * like any other, as far as there is time for it; and one with it must have a right signature all the same.
 */
import { concatBytes, equalSecrets, utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import { pilaSignatureInput } from "../wire/frame.ts";
import type { NodeId } from "../wire/ids.ts";
import type { LocalIdentity } from "./key-exchange.ts";

export const EXCHANGE_PROOF_BYTES = 12;

export class ExchangeProof {
  readonly #crypto: Crypto;
  readonly #local: LocalIdentity;
  readonly #peer: NodeId;
  readonly #peerIdentity: Uint8Array;
  /** Made when it is first needed, and anew when our identity is another. */
  #pads: Pads | undefined;
  #madeFor: Uint8Array | undefined;

  constructor(crypto: Crypto, local: LocalIdentity, peer: NodeId, peerIdentity: Uint8Array) {
    this.#crypto = crypto;
    this.#local = local;
    this.#peer = peer;
    this.#peerIdentity = peerIdentity;
  }

  /** The tag for our own exchange; undefined when the peer's identity key is none that can share anything. */
  ours(exchangeKey: Uint8Array): Uint8Array | undefined {
    return this.#tag(this.#local.node, exchangeKey);
  }

  /** Whether `tag` shows that the peer made its exchange with this key. */
  isPeers(exchangeKey: Uint8Array, tag: Uint8Array): boolean {
    const right = this.#tag(this.#peer, exchangeKey);
    return right !== undefined && equalSecrets(right, tag);
  }

  wipe(): void {
    this.#pads?.inner.fill(0);
    this.#pads?.outer.fill(0);
    this.#pads = undefined;
    this.#madeFor = undefined;
  }

  #tag(sender: NodeId, exchangeKey: Uint8Array): Uint8Array | undefined {
    if (this.#madeFor !== this.#local.publicKey) {
      this.wipe();
      this.#madeFor = this.#local.publicKey;
      this.#pads = this.#makePads();
    }
    if (this.#pads === undefined) return undefined;
    const inner = this.#crypto.sha256(concatBytes(this.#pads.inner, pilaSignatureInput(sender, exchangeKey)));
    return this.#crypto.sha256(concatBytes(this.#pads.outer, inner)).subarray(0, EXCHANGE_PROOF_BYTES);
  }

  #makePads(): Pads | undefined {
    const theirs = this.#crypto.x25519OfIdentity(this.#peerIdentity);
    const ours = this.#crypto.x25519OfSeed(this.#local.seed);
    const shared = theirs && this.#crypto.x25519(ours, theirs);
    ours.fill(0);
    if (shared === undefined) return undefined;
    const key = this.#crypto.hkdfSha256(shared, PROOF_INFO, KEY_BYTES);
    shared.fill(0);
    const pads = { inner: padOf(key, 0x36), outer: padOf(key, 0x5c) };
    key.fill(0);
    return pads;
  }
}

interface Pads {
  readonly inner: Uint8Array;
  readonly outer: Uint8Array;
}

function padOf(key: Uint8Array, fill: number): Uint8Array {
  return new Uint8Array(HASH_BLOCK_BYTES).map((_, i) => (key[i] ?? 0) ^ fill);
}

const PROOF_INFO = utf8("pilot-tun/exchange-proof");
const KEY_BYTES = 32;
const HASH_BLOCK_BYTES = 64;
