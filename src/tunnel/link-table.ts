/**
 * The links of this node: which peers we may talk with at all, by node and by index.
 * Key: node. Bound: MAX_LINKS; a link is added when this side consents and removed when it no longer does.
 */
import type { Crypto } from "../base/crypto.ts";
import { DeadlineHeap } from "../base/deadline-heap.ts";
import type { Endpoint } from "../base/endpoint.ts";
import type { Deadline, Instant } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";
import { type DataPlane, MAX_ENDPOINT_SLOTS, MAX_KEY_SLOTS, MAX_LINKS, type StagedPacket } from "./data-plane.ts";
import { ExchangeBudget } from "./exchange-screen.ts";
import type { LocalIdentity } from "./key-exchange.ts";
import { Link } from "./link.ts";
import type { LinkContext, LinkEvent, RekeyLimits } from "./link-context.ts";
import type { RelayKind } from "./path.ts";
import { SlotPool } from "./session.ts";
import { LINK_TIMERS } from "./timers.ts";

export interface Transmit {
  readonly to: Endpoint;
  readonly datagram: Uint8Array;
  /** The underlay may carry it in pieces where it is longer than what passes whole; false unless told. */
  readonly mayBreak?: boolean;
}

export interface LinkTablePorts {
  readonly crypto: Crypto;
  readonly dataPlane: DataPlane;
  readonly local: LocalIdentity;
  readonly allowLegacyKeys: boolean;
  /** Nothing goes straight to any peer. */
  readonly relayOnly: boolean;
  relay(): Endpoint | undefined;
  relayKind(): RelayKind;
  readonly rekey: RekeyLimits;
  mustAgree(node: NodeId): boolean;
  wantsKeepalive(link: Link): boolean;
}

export class LinkTable {
  readonly sendKey = new Int32Array(MAX_LINKS).fill(-1);
  readonly sendEndpoint = new Int32Array(MAX_LINKS).fill(-1);
  readonly linkOfKey = new Int32Array(MAX_KEY_SLOTS).fill(-1);
  /** Per key slot: 1 when what opens under it may agree on keys, and nothing else. */
  readonly onlyAgrees = new Uint8Array(MAX_KEY_SLOTS);
  readonly #byNode = new Map<NodeId, Link>();
  readonly #byIndex: (Link | undefined)[] = [];
  readonly #indexes = new SlotPool(MAX_LINKS);
  readonly #context: LinkContext;
  /** Each link with a running timer by its first: a wake-up costs the same for one peer and for thousands. Bound: the links. */
  readonly #deadlines = new DeadlineHeap<Link>();
  /** Links whose place there is to be looked up: packets set and stop timers many times for each wake-up. Bound: the links. */
  readonly #changed = new Set<Link>();
  readonly #transmits: Transmit[] = [];
  /** Packets that waited and may go now. Bound: what links staged; emptied after each input. */
  readonly #released: { keySlot: number; endpointSlot: number; packet: StagedPacket }[] = [];
  readonly #events: LinkEvent[] = [];

  /** Nothing goes straight to any peer, and nothing that comes straight is taken. */
  readonly relayOnly: boolean;

  constructor(ports: LinkTablePorts) {
    this.relayOnly = ports.relayOnly;
    this.#context = {
      ...ports,
      keySlots: new SlotPool(MAX_KEY_SLOTS),
      endpointSlots: new SlotPool(MAX_ENDPOINT_SLOTS),
      exchangeBudget: new ExchangeBudget(),
      sendKey: this.sendKey,
      sendEndpoint: this.sendEndpoint,
      linkOfKey: this.linkOfKey,
      relay: () => ports.relay(),
      relayKind: () => ports.relayKind(),
      onlyAgrees: this.onlyAgrees,
      timersAt: new Float64Array(MAX_LINKS * LINK_TIMERS.length), // zero pages until links use their part
      mustAgree: (node) => ports.mustAgree(node),
      wantsKeepalive: (link) => ports.wantsKeepalive(link),
      transmit: (to, datagram, mayBreak) => this.#transmits.push({ to, datagram, mayBreak }),
      release: (keySlot, endpointSlot, packet) => this.#released.push({ keySlot, endpointSlot, packet }),
      emit: (event) => this.#events.push(event),
      timersChanged: (link) => this.#changed.add(link),
    };
  }

  get(node: NodeId): Link | undefined {
    return this.#byNode.get(node);
  }

  at(index: number): Link | undefined {
    return this.#byIndex[index];
  }

  ofKey(keySlot: number): Link | undefined {
    return this.#byIndex[this.linkOfKey[keySlot] ?? -1];
  }

  /** Looks through all: for what happens rarely. */
  ofEndpointSlot(endpointSlot: number): Link | undefined {
    return this.#byIndex[this.sendEndpoint.indexOf(endpointSlot)];
  }

  links(): IterableIterator<Link> {
    return this.#byNode.values();
  }

  /** The link to `node`, made if need be; undefined when the table is full. */
  open(node: NodeId, identityKey: Uint8Array): Link | undefined {
    const known = this.#byNode.get(node);
    if (known !== undefined) return known;
    const index = this.#indexes.take();
    if (index === undefined) return undefined;
    const endpointSlot = this.#context.endpointSlots.take();
    if (endpointSlot === undefined) {
      this.#indexes.give(index);
      return undefined;
    }
    const link = new Link(this.#context, node, identityKey, index, endpointSlot);
    this.#byNode.set(node, link);
    this.#byIndex[index] = link;
    return link;
  }

  close(node: NodeId): void {
    const link = this.#byNode.get(node);
    if (link === undefined) return;
    link.close();
    this.#changed.delete(link);
    this.#deadlines.set(link, undefined);
    this.#byNode.delete(node);
    this.#byIndex[link.index] = undefined;
    this.#indexes.give(link.index);
  }

  pollTransmit(): Transmit | undefined {
    return this.#transmits.shift();
  }

  /** Must be called when `pollTransmit` has nothing more: the frames there make these ones readable. */
  sendReleased(): void {
    for (const { keySlot, endpointSlot, packet } of this.#released) {
      this.#context.dataPlane.sendStaged(keySlot, endpointSlot, packet);
    }
    this.#released.length = 0;
  }

  pollEvent(): LinkEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    this.#orderChanged();
    return this.#deadlines.first()?.deadline;
  }

  handleTimeout(now: Instant): void {
    this.#orderChanged();
    for (let first = this.#deadlines.first(); first !== undefined && first.deadline.at <= now; ) {
      first.owner.handleTimeout(now); // takes all that is due, so that this link is behind `now` afterwards
      this.#orderChanged();
      first = this.#deadlines.first();
    }
  }

  #orderChanged(): void {
    for (const link of this.#changed) this.#deadlines.set(link, link.nextDeadline());
    this.#changed.clear();
  }
}
