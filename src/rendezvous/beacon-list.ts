/**
 * Beacons that announced themselves, for `beacon_list`. An announcement lives for 60 s; it is not stored.
 */
import { BoundedMap } from "../base/bounded-map.ts";
import type { Instant } from "../base/instant.ts";

export interface ListedBeacon {
  readonly id: number;
  readonly addr: string;
}

export class BeaconList {
  /** By beacon ID; bounded, an announcement ages out or is evicted by later ones. */
  readonly #beacons = new BoundedMap<number, { readonly addr: string; readonly at: Instant }>(MAX_BEACONS);

  announce(id: number, addr: string, now: Instant): void {
    this.#beacons.set(id, { addr, at: now });
  }

  list(now: Instant): ListedBeacon[] {
    const listed: ListedBeacon[] = [];
    for (const [id, beacon] of this.#beacons.entries()) {
      if (now - beacon.at < ANNOUNCEMENT_LIFE_MS) listed.push({ id, addr: beacon.addr });
    }
    return listed;
  }
}

const MAX_BEACONS = 64;
const ANNOUNCEMENT_LIFE_MS = 60_000;
