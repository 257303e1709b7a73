/**
 * The trust handshake on virtual port 444 (pilot protocol §7.1): one JSON message per stream, no answer on it. Plain
 * agents hear of requests, approvals and revocations here when they are online; what cannot be said directly travels
 * through the registry.
 *
 * The tunnel has authenticated the peer and its replay window has seen to freshness, so the message's timestamp is not
 * judged: a node with a wrong clock can still be trusted. What is demanded: the message speaks for the stream's own node,
 * with its pinned key, and the signature is right.
 */
import { concatBytes, equalBytes, utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { DropCounters } from "../base/drop-reason.ts";
import { after, type Deadline, earlier, type Instant, type WallClock } from "../base/instant.ts";
import { TokenBucket } from "../base/token-bucket.ts";
import type { Stream } from "../stream/stream.ts";
import type { StreamEvent } from "../stream/stream-event.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { askTextOf } from "../trust/trust-record.ts";
import type { LocalIdentity } from "../tunnel/key-exchange.ts";
import { encodeHandshake, type HandshakeMessage, handshakeSignedText, parseHandshake } from "../wire/handshake.ts";
import { BACKBONE, type NodeId } from "../wire/ids.ts";
import { PORT } from "../wire/virtual-packet.ts";
import type { DirectWord, Introductions } from "./introductions.ts";
import type { NodeStreams, StreamOwner } from "./node-streams.ts";

export interface DirectHandshakeParts {
  readonly local: LocalIdentity;
  readonly crypto: Crypto;
  readonly streams: NodeStreams;
  readonly introductions: Introductions;
  readonly book: TrustBook;
  readonly drops: DropCounters;
  wall(now: Instant): WallClock;
  /** The peer has taken our revocation: it knows. */
  revocationHeard(node: NodeId, now: Instant): void;
}

export class DirectHandshakes implements StreamOwner {
  readonly #parts: DirectHandshakeParts;
  /** Key: node. Bound: links; the last word we owe a peer that we could not say yet. */
  readonly #owed = new Map<NodeId, DirectWord>();
  /** Streams of ours. Bound: the stream table's; an entry goes when its stream is over. */
  readonly #outgoing = new Map<Stream, Outgoing>();
  /** Streams of peers, with what arrived so far. Bound: the stream table's; an entry goes with its stream or deadline. */
  readonly #incoming = new Map<Stream, { node: NodeId; bytes: Uint8Array; giveUpAt: Instant }>();

  /** Key: node. Bound: links; an entry outlives its link's session, so that nobody gets more by coming anew. */
  readonly #looks = new Map<NodeId, TokenBucket>();

  constructor(parts: DirectHandshakeParts) {
    this.#parts = parts;
    parts.streams.listen(PORT.HANDSHAKE, "accept", this);
  }

  /** Says it now if there is a session, else as soon as there is one. */
  say(node: NodeId, word: DirectWord, isUp: boolean, now: Instant): void {
    this.#takeBack(node, word, now);
    this.#owed.set(node, word);
    if (isUp) this.linkUp(node, now);
  }

  linkUp(node: NodeId, now: Instant): void {
    const word = this.#owed.get(node);
    if (word === undefined) return;
    const remote = { network: BACKBONE, node };
    const stream = this.#parts.streams.dial(this, remote, PORT.HANDSHAKE, now);
    if (stream === undefined) return;
    this.#owed.delete(node);
    this.#outgoing.set(stream, { node, word, closeAt: undefined, messageBytes: undefined });
  }

  /** What contradicts the word and is still being repeated must not arrive after it. */
  #takeBack(node: NodeId, word: DirectWord, now: Instant): void {
    for (const [stream, said] of this.#outgoing) {
      if (said.node !== node || (said.word === "revoke") === (word === "revoke")) continue;
      this.#outgoing.delete(stream);
      stream.reset(now);
    }
  }

  /** The link is gone, and its streams: nothing more can be said to this peer, and nothing of it is listened to. */
  forget(node: NodeId): void {
    this.#owed.delete(node);
    this.#looks.delete(node);
    for (const stream of this.#outgoing.keys()) if (stream.remote.node === node) this.#outgoing.delete(stream);
    for (const stream of this.#incoming.keys()) if (stream.remote.node === node) this.#incoming.delete(stream);
  }

  handleTimeout(now: Instant): void {
    for (const [stream, { closeAt }] of this.#outgoing) {
      if (closeAt !== undefined && closeAt <= now) this.#close(stream, now);
    }
    for (const [stream, { giveUpAt }] of this.#incoming) {
      if (giveUpAt > now) continue;
      this.#incoming.delete(stream);
      stream.reset(now);
    }
  }

  pollTimeout(): Deadline | undefined {
    let first: Deadline | undefined;
    for (const { closeAt } of this.#outgoing.values()) {
      if (closeAt !== undefined) first = earlier(first, { at: closeAt, reason: "handshake-close" });
    }
    for (const { giveUpAt } of this.#incoming.values()) {
      first = earlier(first, { at: giveUpAt, reason: "handshake-incomplete" });
    }
    return first;
  }

  handleRequested(stream: Stream, now: Instant): void {
    stream.accept(now);
  }

  handleAccepted(stream: Stream, now: Instant): void {
    const giveUpAt = after(now, INCOMPLETE_MS);
    this.#incoming.set(stream, { node: stream.remote.node, bytes: new Uint8Array(0), giveUpAt });
  }

  handleStreamEvent(stream: Stream, event: StreamEvent, now: Instant): void {
    const outgoing = this.#outgoing.get(stream);
    if (outgoing !== undefined) this.#handleOutgoing(stream, outgoing, event, now);
    else this.#handleIncoming(stream, event, now);
  }

  #handleOutgoing(stream: Stream, outgoing: Outgoing, event: StreamEvent, now: Instant): void {
    switch (event.kind) {
      case "established":
        outgoing.messageBytes = stream.write(this.#message(outgoing.node, outgoing.word, now), now);
        outgoing.closeAt = after(now, LINGER_MS);
        return;
      case "closed":
        this.#outgoing.delete(stream);
        if (outgoing.word === "revoke" && event.undeliveredBytes === 0) {
          this.#parts.revocationHeard(outgoing.node, now);
        }
        return;
      case "refused":
      case "reset":
      case "timed-out":
      case "truncated":
        this.#outgoing.delete(stream); // the registry carries the same word
        return;
      case "readable":
        stream.read(now);
        return;
      case "ended":
        return this.#noteHeard(stream, outgoing, now);
      case "writable":
        return;
    }
  }

  /** Who has all of the message, and ends, has heard it: the rest of the stream's end may never come, the link closes now. */
  #noteHeard(stream: Stream, { node, word, messageBytes }: Outgoing, now: Instant): void {
    const acknowledgedBytes = stream.statistics?.acknowledgedBytes ?? 0;
    if (word === "revoke" && messageBytes !== undefined && acknowledgedBytes >= messageBytes) {
      this.#parts.revocationHeard(node, now);
    }
  }

  #handleIncoming(stream: Stream, event: StreamEvent, now: Instant): void {
    const incoming = this.#incoming.get(stream);
    if (incoming === undefined) return;
    if (event.kind === "readable") {
      for (let part = stream.read(now); part !== undefined; part = stream.read(now)) {
        incoming.bytes = concatBytes(incoming.bytes, part);
        if (incoming.bytes.length > MAX_MESSAGE_BYTES) break;
      }
      const message = parseHandshake(incoming.bytes);
      const isHopeless = incoming.bytes.length > MAX_MESSAGE_BYTES;
      if (message === undefined && !isHopeless) return; // not all of it yet
      this.#incoming.delete(stream);
      stream.close(now);
      if (message !== undefined) this.#heard(incoming.node, message, now);
      return;
    }
    if (event.kind !== "established" && event.kind !== "writable") {
      this.#incoming.delete(stream);
      stream.close(now);
    }
  }

  #heard(node: NodeId, message: HandshakeMessage, now: Instant): void {
    if (!this.#mayBeLookedAt(node, now)) return this.#parts.drops.count("questions-limited");
    if (!this.#isAuthentic(node, message)) return;
    const { introductions } = this.#parts;
    switch (message.type) {
      case "handshake_request":
        return introductions.heardRequest(node, message.justification, now);
      case "handshake_accept":
        return introductions.heardAccept(node, now);
      case "handshake_reject":
        return introductions.heardReject(node, now);
      case "handshake_revoke":
        return introductions.heardRevoke(node, now);
    }
  }

  /** Each costs a signature check, and each request perhaps words to the registry. */
  #mayBeLookedAt(node: NodeId, now: Instant): boolean {
    let bucket = this.#looks.get(node);
    if (bucket === undefined) {
      bucket = new TokenBucket(LOOKS_PER_SECOND, LOOK_BURST, now);
      this.#looks.set(node, bucket);
    }
    return bucket.take(now);
  }

  #isAuthentic(node: NodeId, message: HandshakeMessage): boolean {
    const pinned = this.#parts.book.get(node)?.publicKey;
    if (message.node !== node || pinned === undefined || !equalBytes(pinned, message.publicKey)) return false;
    const signed = utf8(handshakeSignedText(node, this.#parts.local.node));
    return this.#parts.crypto.ed25519Verify(pinned, signed, message.signature);
  }

  #message(node: NodeId, word: DirectWord, now: Instant): Uint8Array {
    const { local, crypto, book } = this.#parts;
    const record = word === "request" ? book.get(node) : undefined;
    return encodeHandshake({
      type: `handshake_${word}`,
      node: local.node,
      publicKey: local.publicKey,
      justification: record === undefined ? "" : askTextOf(record),
      signature: crypto.ed25519Sign(local.seed, utf8(handshakeSignedText(local.node, node))),
      reason: "",
      timestampS: Math.floor(this.#parts.wall(now) / 1000),
    });
  }

  #close(stream: Stream, now: Instant): void {
    const outgoing = this.#outgoing.get(stream);
    if (outgoing !== undefined) outgoing.closeAt = undefined;
    stream.close(now);
  }
}

interface Outgoing {
  readonly node: NodeId;
  readonly word: DirectWord;
  closeAt: Instant | undefined;
  /** Of the message; undefined until it was written. */
  messageBytes: number | undefined;
}

/** The reference closes its side half a second after it wrote; what it reads is there by then. */
const LINGER_MS = 500;
const INCOMPLETE_MS = 10_000;
const LOOKS_PER_SECOND = 2;
const LOOK_BURST = 16;
const MAX_MESSAGE_BYTES = 65_536;
