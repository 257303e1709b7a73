/**
 * A second endpoint slot of a link, for packets that must go through the relay while the link's own way is direct. Most
 * links never need it: it is taken from the pool by the first such packet.
 */
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Instant } from "../base/instant.ts";
import { encodeRelayPrefix } from "../wire/beacon.ts";
import type { NodeId } from "../wire/ids.ts";
import type { StagedPacket } from "./data-plane.ts";
import type { LinkContext } from "./link-context.ts";

export class RelaySlot {
  readonly #context: LinkContext;
  readonly #peer: NodeId;
  /** Where the link's own way leads. */
  readonly #ownSlot: number;
  #slot: number | undefined;
  #relay: Endpoint | undefined;
  #shownAt: Instant | undefined;

  constructor(context: LinkContext, peer: NodeId, ownSlot: number) {
    this.#context = context;
    this.#peer = peer;
    this.#ownSlot = ownSlot;
  }

  /** For packets that must go this way, while the link's own way is through the relay or not; undefined: it is not there. */
  slotFor(way: StagedPacket["way"], isRelayed: boolean): number | undefined {
    if (way === undefined || isRelayed === (way === "relay")) return this.#ownSlot;
    return way === "relay" ? this.#take() : undefined;
  }

  #take(): number | undefined {
    const relay = this.#context.relay();
    if (relay === undefined) return undefined;
    this.#slot ??= this.#context.endpointSlots.take();
    if (this.#slot === undefined) return undefined;
    if (relay !== this.#relay) {
      this.#relay = relay;
      const prefix = encodeRelayPrefix(this.#context.local.node, this.#peer);
      this.#context.dataPlane.setEndpoint(this.#slot, relay, prefix);
    }
    return this.#slot;
  }

  /** Frames through the relay alone would look to the peer as if the direct way had gone: it must be shown now and then. */
  mustShowDirect(now: Instant): boolean {
    if (this.#shownAt !== undefined && after(this.#shownAt, SHOW_DIRECT_MS) > now) return false;
    this.#shownAt = now;
    return true;
  }

  give(): void {
    if (this.#slot !== undefined) this.#context.endpointSlots.give(this.#slot);
    this.#slot = undefined;
    this.#relay = undefined;
  }
}

/** A direct way that is silent for twice as long is doubted. */
const SHOW_DIRECT_MS = 500;
