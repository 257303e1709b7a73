/**
 * What peers call themselves at the registry. A tag is the peer's own word, carried by the registry, and both may lie: a
 * rule by tag trusts them that far and no further, for no tag replaces consent.
 *
 * Tags come with every look-up; as long as rules name some they are asked for regularly, and what was known stays known
 * while the registry is away.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import { after, type Deadline, type Instant } from "../base/instant.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { RegistryEvent } from "../registry/events.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { type NodeId, nodeId } from "../wire/ids.ts";

export interface PeerTagsParts {
  readonly registry: Pick<RegistryClient, "lookup">;
  readonly trust: TrustBook;
  /** Verdicts that were made by other tags count no longer. */
  changed(now: Instant): void;
}

/** What is worth keeping for a start without a registry. */
export type StoredTags = readonly { readonly node: number; readonly tags: readonly string[] }[];

export class PeerTags {
  readonly #parts: PeerTagsParts;
  /** Key: node with a trust record. Bound: MAX_PEERS, the one heard of longest ago goes. */
  readonly #tags = new BoundedMap<NodeId, readonly string[]>(MAX_PEERS);
  #isWanted = false;
  #askAt: Instant | undefined;

  constructor(parts: PeerTagsParts, stored: StoredTags) {
    this.#parts = parts;
    for (const { node, tags } of stored) this.#tags.set(nodeId(node), tags);
  }

  of(node: NodeId): readonly string[] {
    return this.#tags.get(node) ?? NONE;
  }

  toStored(): StoredTags {
    const known = [...this.#tags.entries()].filter(([node, tags]) => tags.length > 0 && this.#isPeer(node));
    return known.map(([node, tags]) => ({ node, tags }));
  }

  /** Whether rules name tags. */
  want(isWanted: boolean, now: Instant): void {
    if (isWanted && !this.#isWanted) this.#askAt = now;
    this.#isWanted = isWanted;
    if (!isWanted) this.#askAt = undefined;
  }

  handleRegistry(event: RegistryEvent, now: Instant): void {
    if (event.kind === "registered" && this.#isWanted) this.#ask(now);
    if (event.kind !== "looked-up" || event.result === undefined || !this.#isPeer(event.node)) return;
    const before = this.of(event.node);
    this.#tags.set(event.node, event.result.tags);
    if (!sameTags(before, event.result.tags)) this.#parts.changed(now);
  }

  pollTimeout(): Deadline | undefined {
    return this.#askAt === undefined ? undefined : { at: this.#askAt, reason: "tags of peers" };
  }

  handleTimeout(now: Instant): void {
    if (this.#askAt !== undefined && this.#askAt <= now) this.#ask(now);
  }

  #ask(now: Instant): void {
    this.#askAt = after(now, REFRESH_MS);
    let asked = 0;
    for (const node of this.#parts.trust.nodesIn("mutual")) {
      if (asked++ === MAX_LOOKUPS_AT_ONCE) return;
      this.#parts.registry.lookup(node);
    }
  }

  #isPeer(node: NodeId): boolean {
    return this.#parts.trust.get(node) !== undefined;
  }
}

function sameTags(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((tag, index) => tag === b[index]);
}

const NONE: readonly string[] = [];
const MAX_PEERS = 16_384;
const MAX_LOOKUPS_AT_ONCE = 1_024;
const REFRESH_MS = 60_000;
