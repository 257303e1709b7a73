/**
 * Datagrams that are no opened frame: beacon messages, key exchanges, frames without a key, and what is refused. To a
 * stranger the node is silent: nothing here answers a sender that has no link, and none of it costs a signature check.
 */
import type { DropReason } from "../base/drop-reason.ts";
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import type { BeaconClient } from "../beacon/client.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { classifyDatagram, exchangeSender, parsePila, parsePils } from "../wire/frame.ts";
import type { NodeId } from "../wire/ids.ts";

export interface DatagramParts {
  readonly links: LinkTable;
  readonly beacon: BeaconClient | undefined;
  /** Where beacon messages must come from. */
  beaconEndpoint(): Endpoint | undefined;
  /** A key exchange by another key than the pinned one: only a lookup tells whether the node's key changed. */
  wrongKey(node: NodeId, now: Instant): void;
  /** A punch frame that came through the relay: perhaps an echo of ours. */
  heardEcho(frame: Uint8Array, now: Instant): void;
  /** A datagram of a beacon's kind that came straight from `source`. */
  heardBeacon(datagram: Uint8Array, source: Endpoint, now: Instant): void;
}

export class Datagrams {
  readonly #parts: DatagramParts;

  constructor(parts: DatagramParts) {
    this.#parts = parts;
  }

  /**
   * `datagram` is borrowed; `relayed`: the beacon's wrapper was taken off. `sourceOf` costs more than a look at what a
   * stranger sent.
   */
  handle(datagram: Uint8Array, sourceOf: () => Endpoint, relayed: boolean, now: Instant): DropReason | undefined {
    const kind = classifyDatagram(datagram);
    if (kind !== "beacon" && !relayed && this.#parts.links.relayOnly) return "direct-refused";
    switch (kind) {
      case "beacon":
        return relayed ? "beacon-spoofed" : this.#handleBeacon(datagram, sourceOf(), now);
      case "pila":
        return this.#handleExchange(datagram, sourceOf, relayed, now);
      case "pils":
        return this.#handleUnknownKey(datagram, sourceOf, relayed, now);
      case "pilk":
        return "anonymous-exchange-refused";
      case "pilt":
        return "plaintext-refused";
      case "pilp":
        if (relayed) this.#parts.heardEcho(datagram, now);
        return undefined; // a punch opens the way by its mere arrival
      case "unknown":
        return datagram.length < 4 ? "datagram-too-short" : "unknown-magic";
    }
  }

  #handleBeacon(datagram: Uint8Array, source: Endpoint, now: Instant): DropReason | undefined {
    this.#parts.heardBeacon(datagram, source, now);
    if (!sameEndpoint(source, this.#parts.beaconEndpoint())) return "beacon-spoofed";
    this.#parts.beacon?.handleDatagram(datagram.slice(), now);
    return undefined;
  }

  #handleExchange(
    datagram: Uint8Array,
    sourceOf: () => Endpoint,
    relayed: boolean,
    now: Instant,
  ): DropReason | undefined {
    const sender = exchangeSender(datagram);
    if (sender === undefined) return "bad-key-exchange";
    const link = this.#parts.links.get(sender);
    const pila = link && parsePila(datagram);
    if (pila === undefined) return "unknown-sender";
    const refused = link!.handleExchange(pila, sourceOf(), relayed, now);
    if (refused === "wrong-key") this.#parts.wrongKey(pila.sender, now);
    return refused;
  }

  #handleUnknownKey(datagram: Uint8Array, sourceOf: () => Endpoint, relayed: boolean, now: Instant): DropReason {
    const frame = parsePils(datagram);
    if (frame === undefined) return "datagram-too-short";
    const link = this.#parts.links.get(frame.sender);
    if (link === undefined) return "unknown-sender";
    link.requestExchange(sourceOf(), relayed, now); // it holds keys that we lost
    return "no-session";
  }
}
