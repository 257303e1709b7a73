/**
 * What two pilot-tun nodes tell each other inside the session, beside packets: hello (what I am, whether I consent, what
 * fits my interface), revoked. Written down in docs/bridge-protocol.md. A plain agent stays silent on the
 * port: after a few unanswered hellos the peer counts as one, until it speaks on the port after all. A ping follows each
 * hello, which every kind of peer answers: with its answer the wait for this hello is over. What an earlier run learned is
 * where we start; what is observed replaces it.
 */
import type { DropReason } from "../base/drop-reason.ts";
import { after, type Instant } from "../base/instant.ts";
import type { Link } from "../tunnel/link.ts";
import {
  type BridgeMessage,
  bridgePacket,
  FEATURE,
  type Hello,
  parseBridgeMessage,
  type Revocation,
  type RevocationReason,
} from "../wire/bridge.ts";
import type { NodeId } from "../wire/ids.ts";
import type { Explanations } from "./explanations.ts";
import type { SizeMessage } from "./packet-sizes.ts";

export type PeerKind = "unknown" | "pilot-tun" | "plain";

/** What a hello says about trust; `lease` undefined: the sender knows of no limits. Heard: whether it answers one of ours. */
export type Consent = Pick<Hello, "consents" | "epoch" | "lease"> & { readonly kind?: Hello["kind"] };

export interface BridgeParts {
  readonly local: NodeId;
  readonly mtuBytes: number;
  readonly instance: Uint8Array;
  /** What a hello to this peer says about trust. */
  consentTo(node: NodeId, now: Instant): Consent;
  /** The peer, authenticated, said whether it consents, after which revocation of its own, and within which limits. */
  heardConsent(node: NodeId, said: Consent, now: Instant): void;
  heardRevoked(node: NodeId, revocation: Revocation, now: Instant): void;
  heardRevokedAck(node: NodeId, now: Instant): void;
  /** The peer said something about the length of packets, or sent a part of one. */
  heardSize(link: Link, message: SizeMessage, now: Instant): DropReason | undefined;
  /** What peers were in an earlier run. */
  readonly kinds: ReadonlyMap<NodeId, PeerKind>;
  /** For questions why, and what is said to ours. */
  explanations(): Pick<Explanations, "handleQuestion" | "handleAnswer" | "takesAnswer">;
  /** What the peer is was observed, and is not what it was taken for. */
  kindChanged(node: NodeId, now: Instant): void;
  /** True makes this node a plain agent: it never says hello and is deaf on the port. */
  readonly plainOnly: boolean;
  /** A control ping to the peer; its sequence number, or undefined when there is no session. */
  ping(link: Link, now: Instant): number | undefined;
  /** False: as a pilot-tun that does not know how to agree on keys. */
  readonly agrees: boolean;
}

interface PeerFacts {
  kind: PeerKind;
  /** False: only what an earlier run says. */
  isObserved: boolean;
  hellosSent: number;
  /** An unanswered row of hellos means a plain agent; false when they only tell news to a peer that is known. */
  asksForKind: boolean;
  /** The ping that followed the last hello of such a row, as long as nothing came back. */
  ping: number | undefined;
  /** Of its last hello in this session. */
  features: number;
}

export class BridgeConversation {
  readonly #parts: BridgeParts;
  /** Key: node. Bound: as many as there are links; removed with `forget`. */
  readonly #peers = new Map<NodeId, PeerFacts>();

  /** Key: node. Bound: trust records; what each was when it last showed, a hint for the next start. */
  readonly #kinds: Map<NodeId, PeerKind>;

  constructor(parts: BridgeParts) {
    this.#parts = parts;
    this.#kinds = new Map(parts.kinds);
  }

  get kinds(): ReadonlyMap<NodeId, PeerKind> {
    return this.#kinds;
  }

  /** Whether this node agrees on keys with peers that do. */
  get agrees(): boolean {
    return this.#parts.agrees && !this.#parts.plainOnly;
  }

  kindOf(node: NodeId): PeerKind {
    return this.#peers.get(node)?.kind ?? "unknown";
  }

  /** What the peer can do, by its last hello; 0 before. */
  featuresOf(node: NodeId): number {
    return this.#peers.get(node)?.features ?? 0;
  }

  forget(node: NodeId): void {
    this.#peers.delete(node);
  }

  /**
   * Keys were agreed: what the peer is may have changed with them. That it was a pilot-tun is no reason to lose packets should
   * it be one no more: until it says hello again nobody knows. Only "plain" goes on being believed.
   */
  linkUp(link: Link, now: Instant): void {
    const facts = this.#facts(link.node);
    facts.hellosSent = 0;
    facts.asksForKind = true;
    facts.features = 0;
    if (facts.kind === "pilot-tun") {
      facts.kind = "unknown";
      facts.isObserved = false;
    }
    this.helloDue(link, now);
  }

  helloDue(link: Link, now: Instant): void {
    const facts = this.#facts(link.node);
    const delayMs = HELLO_RETRY_MS[facts.hellosSent];
    if (delayMs === undefined || this.#parts.plainOnly) {
      if (facts.asksForKind) this.#setKind(link.node, "plain", now);
      return;
    }
    facts.hellosSent++;
    this.send(link, this.#hello(link.node, "hello", now));
    facts.ping = facts.asksForKind ? this.#parts.ping(link, now) : undefined;
    link.schedule("hello-retry", after(now, delayMs));
  }

  /** The peer answered a ping of ours; had it an answer to the hello before it, that would have come first. */
  heardPong(link: Link, sequence: number, now: Instant): void {
    const facts = this.#peers.get(link.node);
    if (facts?.ping === undefined || facts.ping !== sequence) return;
    facts.ping = undefined;
    link.unschedule("hello-retry");
    this.helloDue(link, now);
  }

  /** Our consent, or its limits, changed while the link is up: the peer should know before it asks. */
  consentChanged(link: Link, now: Instant): void {
    if (!link.isUp) return; // the next session begins with a hello
    const facts = this.#facts(link.node);
    if (facts.asksForKind && !facts.isObserved) this.send(link, this.#hello(link.node, "hello", now));
    if (facts.kind !== "pilot-tun" || !facts.isObserved) return; // a row of hellos is under way, or nobody listens
    facts.hellosSent = 0;
    facts.asksForKind = false;
    this.helloDue(link, now);
  }

  /** One hello, for the news of consent in it; repeated by the caller until it is answered. */
  sayHello(link: Link, now: Instant): void {
    this.send(link, this.#hello(link.node, "hello", now));
  }

  /** Tells the peer that it was revoked; repeated by the caller until acknowledged. */
  sendRevoked(link: Link, reason: RevocationReason, now: Instant): boolean {
    return this.send(link, { kind: "revoked", epoch: this.#parts.consentTo(link.node, now).epoch, reason });
  }

  handle(link: Link, payload: Uint8Array, now: Instant): DropReason | undefined {
    if (this.#parts.plainOnly) return "unhandled-virtual-packet";
    const message = parseBridgeMessage(payload);
    if (message === undefined) return "bad-virtual-packet";
    switch (message.kind) {
      case "hello":
        this.#heardHello(link, message, now);
        this.send(link, this.#hello(link.node, "hello-ack", now));
        return undefined;
      case "hello-ack":
        this.#heardHello(link, message, now);
        return undefined;
      case "revoked":
        this.send(link, { ...message, kind: "revoked-ack" });
        this.#parts.heardRevoked(link.node, message, now);
        return undefined;
      case "revoked-ack":
        this.#parts.heardRevokedAck(link.node, now);
        return undefined;
      case "mtu-probe":
        this.send(link, { kind: "mtu-answer", size: message.size, id: message.id });
        return undefined;
      case "mtu-answer":
        return this.#parts.explanations().takesAnswer(message) ? undefined : this.#parts.heardSize(link, message, now);
      case "fragment":
        return this.#parts.heardSize(link, message, now);
      case "why-question":
        return this.#parts.explanations().handleQuestion(link, message, now);
      case "why-answer":
        this.#parts.explanations().handleAnswer(message);
        return undefined;
      case "agree":
      case "agreed":
        return this.agrees ? link.handleAgreement(message, now) : "unknown-bridge-message";
      case "unknown":
        return "unknown-bridge-message";
    }
  }

  #heardHello(link: Link, hello: Extract<BridgeMessage, { kind: "hello" | "hello-ack" }>, now: Instant): void {
    this.#setKind(link.node, "pilot-tun", now);
    link.unschedule("hello-retry");
    const facts = this.#facts(link.node);
    facts.ping = undefined;
    facts.features = hello.features;
    this.#heardAbilities(link, hello, now);
    this.#parts.heardSize(link, hello, now);
    this.#parts.heardConsent(link.node, hello, now);
  }

  #heardAbilities(link: Link, hello: Hello, now: Instant): void {
    if (this.agrees && (hello.features & FEATURE.AGREES) !== 0) link.wantAgreement(now);
  }

  /**
   * In a session that may only agree on keys: that, and a hello of a peer that knows nothing of earlier agreements. Its words
   * on trust are not heard.
   */
  handleCarried(link: Link, payload: Uint8Array, now: Instant): DropReason | undefined {
    const message = parseBridgeMessage(payload);
    if (message?.kind === "agree" || message?.kind === "agreed") return link.handleAgreement(message, now);
    if (message?.kind === "hello" || message?.kind === "hello-ack") this.#heardAbilities(link, message, now);
    return "base-session";
  }

  /** An inner packet of a peer that was not taken for a pilot-tun; false when this node wants none. */
  heardPacket(link: Link, now: Instant): boolean {
    if (this.#parts.plainOnly) return false;
    this.#setKind(link.node, "pilot-tun", now);
    return true;
  }

  #setKind(node: NodeId, kind: PeerKind, now: Instant): void {
    const facts = this.#facts(node);
    if (facts.kind === kind && facts.isObserved) return;
    facts.kind = kind;
    facts.isObserved = true;
    this.#kinds.set(node, kind);
    this.#parts.kindChanged(node, now);
  }

  #hello(node: NodeId, kind: "hello" | "hello-ack", now: Instant): BridgeMessage {
    return {
      kind,
      ...this.#parts.consentTo(node, now),
      features: FEATURE.FRAGMENTS | FEATURE.ANSWERS | (this.#parts.agrees ? FEATURE.AGREES : 0),
      mtu: this.#parts.mtuBytes,
      instance: this.#parts.instance,
    };
  }

  /** False when there is no session. */
  send(link: Link, message: BridgeMessage): boolean {
    if (this.#parts.plainOnly) return false;
    return link.sendVirtual(bridgePacket(this.#parts.local, link.node, message));
  }

  #facts(node: NodeId): PeerFacts {
    let facts = this.#peers.get(node);
    if (facts === undefined) {
      const kind = this.#kinds.get(node) === "plain" ? "plain" : "unknown";
      facts = { kind, isObserved: false, hellosSent: 0, asksForKind: true, ping: undefined, features: 0 };
      this.#peers.set(node, facts);
    }
    return facts;
  }
}

/** Waits after each hello when no ping comes back either; silence after the last one means a plain agent. */
const HELLO_RETRY_MS = [300, 700, 1500];
