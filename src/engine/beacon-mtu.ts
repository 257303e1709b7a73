/**
 * How large a datagram to the beacon may be: frames that this node sends to itself through the relay come back if they
 * fit. Every beacon does its part without knowing. Asked for by an operator, never by itself.
 */
import type { Crypto } from "../base/crypto.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Deadline, type Instant } from "../base/instant.ts";
import type { Transmit } from "../tunnel/link-table.ts";
import { MtuSearch, PLATEAUS } from "../tunnel/mtu-search.ts";
import type { NodeId } from "../wire/ids.ts";
import { ECHO_TOKEN_BYTES, encodeRelayEcho, parseRelayEcho } from "../wire/relay-echo.ts";
import { underlayHeaderBytes } from "../wire/underlay-address.ts";

export interface BeaconMtuParts {
  readonly crypto: Crypto;
  readonly local: NodeId;
  beacon(): Endpoint | undefined;
  transmit(transmit: Transmit): void;
  /** The IP bytes that pass; undefined when nothing came back. */
  measured(bytes: number | undefined): void;
}

export class BeaconMtu {
  readonly #parts: BeaconMtuParts;
  #search: MtuSearch | undefined;
  /** When what was found so far must do. */
  #endsAt: Instant | undefined;
  #token: Uint8Array = new Uint8Array(ECHO_TOKEN_BYTES);

  constructor(parts: BeaconMtuParts) {
    this.#parts = parts;
  }

  /** A measurement that is under way goes on. */
  measure(now: Instant): void {
    if (this.#search !== undefined) return;
    this.#token = this.#parts.crypto.randomBytes(ECHO_TOKEN_BYTES);
    this.#endsAt = after(now, BUDGET_MS);
    const whole = PLATEAUS[0];
    this.#search = new MtuSearch({ first: [whole], enough: whole, known: 0, waitMs: WAIT_MS }, now);
    this.#advance(now);
  }

  /** A frame that came through the relay, and looks like one of ours. */
  handleFrame(frame: Uint8Array, now: Instant): void {
    const size = this.#search === undefined ? undefined : parseRelayEcho(frame, this.#token);
    if (size === undefined) return;
    this.#search!.handleAnswer(size, now);
    this.#advance(now);
  }

  handleTimeout(now: Instant): void {
    if (this.#search === undefined) return;
    this.#search.handleTimeout(now);
    this.#advance(now);
  }

  pollTimeout(): Deadline | undefined {
    const at = this.#search?.deadline;
    return at === undefined ? undefined : { at, reason: "beacon mtu" };
  }

  #advance(now: Instant): void {
    const search = this.#search!;
    const to = this.#parts.beacon();
    for (let size = search.pollProbe(); size !== undefined; size = search.pollProbe()) {
      if (to === undefined) continue;
      const datagram = encodeRelayEcho(this.#parts.local, this.#token, size, underlayHeaderBytes(to));
      this.#parts.transmit({ to, datagram });
    }
    if (search.deadline !== undefined && now < this.#endsAt!) return;
    this.#search = undefined;
    this.#parts.measured(search.found);
  }
}

/** A size is tried three times, and an answer to any of them counts: so round trips may take three times as long. */
const WAIT_MS = 250;
const BUDGET_MS = 6_000;
