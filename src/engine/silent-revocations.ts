/**
 * Plain agents that took their trust back without a word. A daemon of the reference tells the registry first, after which it
 * cannot resolve us any more to tell us; then it drops what we open, and goes on with what is open. Two things make us doubt
 * such a peer: it asks for the keys that it had, because it forgot us, or it leaves a SYN unanswered though it is there. Then
 * the registry is asked whether the two nodes are a pair, and its "no" ends our trust as the peer's own word would. Like
 * everything the registry says it can only narrow.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import { after, type Instant } from "../base/instant.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { RegistryEvent } from "../registry/events.ts";
import type { NodeId } from "../wire/ids.ts";

export interface SilentRevocationsParts {
  readonly registry: Pick<RegistryClient, "checkTrust">;
  /** Others say it themselves. */
  isPlain(node: NodeId): boolean;
  /** The registry knows of no trust between the peer and us. */
  noPair(node: NodeId, now: Instant): void;
}

export class SilentRevocations {
  readonly #parts: SilentRevocationsParts;
  /** When the registry was last asked. Key: node. Bound: MAX_ASKED, oldest out, which may then be asked about again. */
  readonly #askedAt = new BoundedMap<NodeId, Instant>(MAX_ASKED);

  constructor(parts: SilentRevocationsParts) {
    this.#parts = parts;
  }

  doubt(node: NodeId, now: Instant): void {
    const askedAt = this.#askedAt.get(node);
    if (!this.#parts.isPlain(node) || (askedAt !== undefined && after(askedAt, ASK_GAP_MS) > now)) return;
    this.#askedAt.set(node, now);
    this.#parts.registry.checkTrust(node);
  }

  handleRegistry(event: RegistryEvent, now: Instant): void {
    if (event.kind !== "trust-checked" || event.isPair !== false || !this.#parts.isPlain(event.node)) return;
    this.#parts.noPair(event.node, now);
  }
}

/** Anybody can replay an old key exchange, so rarely. */
const ASK_GAP_MS = 5_000;
const MAX_ASKED = 4_096;
