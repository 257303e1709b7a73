/**
 * The conversation with a beacon, from a node's side, without its socket: it learns how the tunnel socket looks from
 * outside, keeps the NAT mapping towards the beacon open, and asks for punches (pilot protocol §5). Its datagrams leave
 * from the tunnel's own socket. The caller hands in only datagrams whose source is the beacon's address; relayed frames
 * are not its business.
 */
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Deadline, type Instant } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import {
  beaconProofText,
  encodeDiscover,
  encodeProvenDiscover,
  encodePunchRequest,
  NOTIFY_HANDSHAKES,
  PROOF_COOKIE_BYTES,
  parseBeaconToNode,
} from "../wire/beacon.ts";
import type { NodeId } from "../wire/ids.ts";
import { isUnicast } from "../wire/underlay-address.ts";

export { encodeRelayPrefix } from "../wire/beacon.ts";

export type BeaconEvent =
  /** The tunnel socket as seen from outside; with every reply, so that it is also a sign of life. */
  | { readonly kind: "observed"; readonly endpoint: Endpoint }
  /** A peer wants to reach us, or we it: open the way to this endpoint. */
  | { readonly kind: "punch"; readonly endpoint: Endpoint }
  /** The beacon believes that we are where we are: from now on it relays for us there. */
  | { readonly kind: "accepted" }
  /** Handshakes wait at the registry. */
  | { readonly kind: "notify" };

/** Lets a node show the beacon that it owns its number. */
export interface BeaconProver {
  readonly publicKey: Uint8Array;
  /** The rendezvous that the node is registered at; undefined before it is, and at one that has no id. */
  rendezvous(): string | undefined;
  sign(text: string): Uint8Array;
}

export class BeaconClient {
  #localNode: NodeId;
  #observed: Endpoint | undefined;
  #discoverAt: Instant;
  /** Discoveries since the last reply. */
  #unanswered = 0;
  #repliedAt: Instant | undefined;
  #discoveredAt: Instant | undefined;
  readonly #punches: TokenBucket;
  /** Bounded by MAX_OUTBOX: what does not fit is dropped, like any datagram. */
  #outbox: Uint8Array[] = [];
  /** Bounded by the punch limit and one entry per datagram handled: drained after each input. */
  #events: BeaconEvent[] = [];

  readonly #prover: BeaconProver | undefined;
  readonly #proofs: TokenBucket;
  /** A cookie that could not be signed before the registry said whose beacon this is. */
  #unsigned: Uint8Array | undefined;

  /** `localNode` is 0 before the first registration. The first discovery is due at once. */
  constructor(localNode: NodeId, now: Instant, prover?: BeaconProver) {
    this.#localNode = localNode;
    this.#prover = prover;
    this.#proofs = new TokenBucket(PROOFS_PER_SECOND, PROOF_BURST, now);
    this.#discoverAt = now;
    this.#punches = new TokenBucket(PUNCHES_PER_SECOND, PUNCH_BURST, now);
  }

  get observed(): Endpoint | undefined {
    return this.#observed;
  }

  /** When the beacon was last heard of; undefined before the first reply. */
  get repliedAt(): Instant | undefined {
    return this.#repliedAt;
  }

  /** A number from the registry: the beacon learns it at once, so that peers can punch and relay to us. */
  setLocalNode(node: NodeId, now: Instant): void {
    if (node === this.#localNode) return;
    this.#localNode = node;
    this.rediscover(now);
  }

  /** The registry took us: now we know to whom a proof would be given. */
  registered(now: Instant): void {
    const cookie = this.#unsigned;
    this.#unsigned = undefined;
    if (cookie !== undefined) this.#prove(cookie, now);
  }

  /** Something about the underlay changed: ask again now. */
  rediscover(now: Instant): void {
    this.#unanswered = 0;
    this.#discover(now);
  }

  /** Something is silent, and a mapping that changed may be why: ask again unless that was done just now. */
  suspect(now: Instant): void {
    if (this.#discoveredAt === undefined || after(this.#discoveredAt, SUSPECT_GAP_MS) <= now) this.rediscover(now);
  }

  /** `datagram` came from the beacon's address. */
  handleDatagram(datagram: Uint8Array, now: Instant): void {
    const message = parseBeaconToNode(datagram);
    if (message?.kind === "discover-reply") {
      this.#handleDiscoverReply(message.endpoint, now);
    } else if (message?.kind === "punch-command") {
      if (isUnicast(message.endpoint) && this.#punches.take(now)) {
        this.#events.push({ kind: "punch", endpoint: message.endpoint });
      }
    } else if (message?.kind === "notify" && message.notice === NOTIFY_HANDSHAKES) {
      if (!this.#events.some((event) => event.kind === "notify")) this.#events.push({ kind: "notify" });
    } else if (message?.kind === "proof-wanted") {
      this.#prove(message.cookie, now);
    } else if (message?.kind === "proof-accepted") {
      this.#discoverAt = after(now, this.#keepaliveMs());
      if (!this.#events.some((event) => event.kind === "accepted")) this.#events.push({ kind: "accepted" });
    }
  }

  handleTimeout(now: Instant): void {
    if (now >= this.#discoverAt) this.#discover(now);
  }

  requestPunch(target: NodeId): void {
    if (this.#localNode !== 0) this.#send(encodePunchRequest(this.#localNode, target));
  }

  pollDatagram(): Uint8Array | undefined {
    return this.#outbox.shift();
  }

  pollEvent(): BeaconEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline {
    return { at: this.#discoverAt, reason: "beacon discover" };
  }

  #handleDiscoverReply(endpoint: Endpoint, now: Instant): void {
    if (!isUnicast(endpoint)) return;
    if (this.#unanswered > 0) this.#discoverAt = after(now, this.#keepaliveMs());
    this.#unanswered = 0;
    this.#repliedAt = now;
    this.#observed = endpoint;
    this.#events.push({ kind: "observed", endpoint });
  }

  /**
   * Both forms: an old beacon knows only the first, and the second tells a new one that we understand notices. Before
   * the first reply it repeats quickly; with one it keeps NAT mappings open that live for 30 s.
   */
  #discover(now: Instant): void {
    this.#discoveredAt = now;
    this.#send(encodeDiscover(this.#localNode, false));
    this.#send(this.#encodeExtended());
    const retryMs = FIRST_RETRY_MS * 2 ** Math.min(this.#unanswered, 5);
    this.#unanswered++;
    this.#discoverAt = after(now, Math.min(retryMs, this.#keepaliveMs()));
  }

  /** Asks for something to sign, if we can; the beacon asks back only when it wants a proof. */
  #encodeExtended(): Uint8Array {
    if (this.#prover === undefined || this.#localNode === 0) return encodeDiscover(this.#localNode, true);
    const claim = { publicKey: this.#prover.publicKey, cookie: NO_COOKIE, signature: undefined };
    return encodeProvenDiscover(this.#localNode, claim);
  }

  /** A proof that gets lost is found out by the next discovery, which therefore comes soon. */
  #prove(cookie: Uint8Array, now: Instant): void {
    if (this.#prover === undefined || this.#localNode === 0) return;
    const rendezvous = this.#prover.rendezvous();
    this.#unsigned = rendezvous === undefined ? cookie : undefined;
    if (rendezvous === undefined || !this.#proofs.take(now)) return;
    const signature = this.#prover.sign(beaconProofText(this.#localNode, rendezvous, cookie));
    this.#send(encodeProvenDiscover(this.#localNode, { publicKey: this.#prover.publicKey, cookie, signature }));
    const retryAt = after(now, PROOF_RETRY_MS);
    if (retryAt < this.#discoverAt) this.#discoverAt = retryAt;
  }

  /** 20 to 25 s, by node number, so that nodes that started together do not stay together. */
  #keepaliveMs(): number {
    return KEEPALIVE_MS + ((this.#localNode * 997) % KEEPALIVE_SPREAD_MS);
  }

  #send(datagram: Uint8Array): void {
    if (this.#outbox.length < MAX_OUTBOX) this.#outbox.push(datagram);
  }
}

const FIRST_RETRY_MS = 500;
const KEEPALIVE_MS = 20_000;
const KEEPALIVE_SPREAD_MS = 5000;
/** A beacon can name any endpoint; this many punches are all that honest traffic needs. */
const PUNCHES_PER_SECOND = 5;
const PUNCH_BURST = 50;
const SUSPECT_GAP_MS = 2_000;
const MAX_OUTBOX = 256;
const NO_COOKIE = new Uint8Array(PROOF_COOKIE_BYTES);
const PROOF_RETRY_MS = 1000;
const PROOFS_PER_SECOND = 0.5;
const PROOF_BURST = 10;
