/** A link's path as frames show it: followed, asked about, and told to the data plane. What it is decides path.ts. */
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Instant } from "../base/instant.ts";
import { encodeRelayPrefix } from "../wire/beacon.ts";
import type { Link } from "./link.ts";
import type { LinkContext } from "./link-context.ts";
import * as timing from "./link-timing.ts";
import type { Path, PathEffect } from "./path.ts";
import type { LinkTimers } from "./timers.ts";
import { DirectSearch } from "./usage.ts";

export class PathFollower {
  readonly #context: LinkContext;
  readonly #link: Link;
  readonly #path: Path;
  readonly #endpointSlot: number;
  readonly #timers: LinkTimers;
  readonly #directSearch = new DirectSearch();
  #confirmedAt: Instant | undefined;

  constructor(context: LinkContext, link: Link, path: Path, endpointSlot: number, timers: LinkTimers) {
    this.#context = context;
    this.#link = link;
    this.#path = path;
    this.#endpointSlot = endpointSlot;
    this.#timers = timers;
  }

  /** A frame opened that came from there. */
  learn(from: Endpoint | undefined, relayed: boolean, carriesData: boolean, now: Instant): void {
    if (relayed) this.follow(this.#path.heardRelay(now), from, now);
    else if (from !== undefined) this.follow(this.#path.heardDirect(from, carriesData, now), from, now);
  }

  follow(effect: PathEffect, from: Endpoint | undefined, now: Instant): void {
    if (effect === "none") return;
    if (effect === "probe") {
      if (this.#confirmedAt !== undefined && after(this.#confirmedAt, timing.CONFIRM_GAP_MS) > now) return;
      this.#confirmedAt = now;
      if (from !== undefined) this.probe(from, now);
      return;
    }
    this.apply();
    this.#context.emit({ kind: "moved", link: this.#link });
    if (this.#path.isRelayed) this.lookForDirect(now);
    else this.#timers.stop("direct-retry");
  }

  apply(): void {
    const relay = this.#context.relay();
    if (this.#path.isRelayed && relay !== undefined) {
      const prefix = encodeRelayPrefix(this.#context.local.node, this.#link.node);
      this.#context.dataPlane.setEndpoint(this.#endpointSlot, relay, prefix);
      return;
    }
    const { direct } = this.#path;
    if (direct !== undefined) this.#context.dataPlane.setEndpoint(this.#endpointSlot, direct, NO_PREFIX);
  }

  probe(endpoint: Endpoint, now: Instant): void {
    this.#path.candidates.tried(endpoint, now);
    this.#context.emit({ kind: "direct-proof-wanted", link: this.#link, endpoint });
  }

  probeAll(now: Instant): void {
    for (const endpoint of this.#path.targets()) this.probe(endpoint, now);
  }

  lookForDirect(now: Instant): void {
    this.#directSearch.restart();
    this.#timers.set("direct-retry", now);
  }

  /** While frames go through the relay: look for a direct way, often at first, as long as somebody uses the link. */
  tryDirect(isWanted: boolean, now: Instant): void {
    if (!this.#path.isRelayed || this.#path.isRelayOnly) return;
    if (!this.#directSearch.isSettling && !isWanted) return; // the next packet starts it again
    if (this.#directSearch.asksAgain) this.#context.emit({ kind: "endpoint-wanted", link: this.#link });
    this.probeAll(now);
    this.#timers.set("direct-retry", after(now, this.#directSearch.nextDelayMs()));
  }
}

const NO_PREFIX = new Uint8Array(0);
