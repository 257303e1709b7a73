/**
 * Packets to a node that we have no record of. The program is told the truth at once: "no route" when no such node
 * exists, "administratively prohibited" when it does but nobody trusted it. Only the registry knows which, so the answer
 * waits for its word (a few milliseconds), but never long; what was learned is kept for a while.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import { after, type Deadline, type Instant } from "../base/instant.ts";
import { NOT_CONNECTED } from "../registry/client.ts";
import type { RegistryEvent } from "../registry/events.ts";
import type { NodeId } from "../wire/ids.ts";

export interface StrangersParts {
  /** Asks the registry; the answer comes back through `answered`. */
  lookup(node: NodeId): void;
  /** False when it is known that the node is not in the network of the packet's destination. */
  mayBelong(packet: Uint8Array, node: NodeId, now: Instant): boolean;
  noRoute(packet: Uint8Array, now: Instant): void;
  prohibited(packet: Uint8Array, now: Instant): void;
}

export class Strangers {
  readonly #parts: StrangersParts;
  /** Key: node. Bound: MAX_KNOWN, oldest out; an entry counts until `until`. */
  readonly #known = new BoundedMap<NodeId, { exists: boolean; until: Instant }>(MAX_KNOWN);
  /** Key: node asked about. Bound: MAX_ASKED, oldest out; removed when answered or overdue. */
  readonly #asked = new BoundedMap<NodeId, { packets: Uint8Array[]; dueAt: Instant }>(MAX_ASKED);

  constructor(parts: StrangersParts) {
    this.#parts = parts;
  }

  /** `packet` is borrowed. */
  refuse(packet: Uint8Array, node: NodeId, now: Instant): void {
    const known = this.#known.get(node);
    if (known !== undefined && known.until > now) return this.#tell(packet, node, known.exists, now);
    const asked = this.#asked.get(node);
    if (asked !== undefined) {
      if (asked.packets.length < MAX_PACKETS_EACH) asked.packets.push(packet.slice(0, MAX_QUOTED_BYTES));
      return;
    }
    this.#asked.set(node, { packets: [packet.slice(0, MAX_QUOTED_BYTES)], dueAt: after(now, PATIENCE_MS) });
    this.#parts.lookup(node);
  }

  handleRegistry(event: RegistryEvent, now: Instant): void {
    if (event.kind === "looked-up") this.answered(event.node, existence(event), now);
  }

  /** `exists` is undefined when the registry could not be asked. */
  answered(node: NodeId, exists: boolean | undefined, now: Instant): void {
    if (exists !== undefined) this.#known.set(node, { exists, until: after(now, exists ? EXISTS_MS : ABSENT_MS) });
    this.#release(node, exists ?? true, now);
  }

  pollTimeout(): Deadline | undefined {
    for (const asked of this.#asked.values()) return { at: asked.dueAt, reason: "stranger-lookup" }; // oldest first
    return undefined;
  }

  handleTimeout(now: Instant): void {
    for (const [node, asked] of [...this.#asked.entries()]) if (asked.dueAt <= now) this.#release(node, true, now);
  }

  #release(node: NodeId, exists: boolean, now: Instant): void {
    const asked = this.#asked.get(node);
    if (asked === undefined) return;
    this.#asked.delete(node);
    for (const packet of asked.packets) this.#tell(packet, node, exists, now);
  }

  #tell(packet: Uint8Array, node: NodeId, exists: boolean, now: Instant): void {
    if (exists && this.#parts.mayBelong(packet, node, now)) this.#parts.prohibited(packet, now);
    else this.#parts.noRoute(packet, now);
  }
}

function existence(event: { readonly result: unknown; readonly error?: string | undefined }): boolean | undefined {
  if (event.result !== undefined) return true;
  return event.error === NOT_CONNECTED ? undefined : false;
}

const MAX_KNOWN = 4_096;
const MAX_ASKED = 256;
const MAX_PACKETS_EACH = 8;
const MAX_QUOTED_BYTES = 1_232; // what an ICMPv6 error can quote
const PATIENCE_MS = 400;
const EXISTS_MS = 60_000;
const ABSENT_MS = 10_000;
