/** How our half of the key exchange leaves: to everywhere the peer may be, and back to where one of its own came from. */
import { BoundedMap } from "../base/bounded-map.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Instant } from "../base/instant.ts";
import { MAX_CANDIDATES } from "./candidates.ts";
import type { ExchangeProof } from "./exchange-proof.ts";
import { placeName, placeOf } from "./exchange-screen.ts";
import { PILA_FLAG, type PilaFlag } from "./key-exchange.ts";
import type { LinkContext } from "./link-context.ts";
import type { LinkSender } from "./link-sender.ts";
import * as timing from "./link-timing.ts";
import type { Path } from "./path.ts";
import type { Sessions } from "./sessions.ts";

export class ExchangeSender {
  readonly #context: LinkContext;
  readonly #sessions: Sessions;
  readonly #path: Path;
  readonly #sender: LinkSender;
  readonly #proof: ExchangeProof;
  /**
   * When it last went there. Key: `placeName`, so that what anybody has us send somewhere keeps the peer from nothing.
   * Bound: MAX_PLACES, oldest out. Undefined while nothing was sent lately.
   */
  #sentAt: BoundedMap<string, Instant> | undefined;

  constructor(context: LinkContext, sessions: Sessions, path: Path, sender: LinkSender, proof: ExchangeProof) {
    this.#context = context;
    this.#sessions = sessions;
    this.#path = path;
    this.#sender = sender;
    this.#proof = proof;
  }

  /** To answer the same key again so soon, to the same place, would be an answer to a copy. */
  wasJustSent(to: Endpoint, relayed: boolean, now: Instant): boolean {
    const sentAt = this.#sentAt?.get(placeName(this.#path, to, relayed));
    return sentAt !== undefined && after(sentAt, timing.SAME_KEY_ANSWER_MS) > now;
  }

  /** Somebody at `to` sends in the peer's name what no key here opens: asks for an exchange, within what strangers may cost. */
  request(to: Endpoint, relayed: boolean, now: Instant): void {
    if (this.wasJustSent(to, relayed, now)) return;
    const isKnown = placeOf(this.#path, to, relayed) === "known";
    if (!isKnown && !this.#context.exchangeBudget.takeRequest(now)) return;
    this.send(PILA_FLAG.REQUEST, to, relayed, now);
  }

  /** The reference hears of us through the beacon too when the direct way is closed (§14.3): `throughRelay`. */
  sendEverywhere(flag: PilaFlag, throughRelay: boolean, now: Instant): void {
    for (const endpoint of this.#path.targets()) this.try(flag, endpoint, now);
    const relay = this.#context.relay();
    if (relay !== undefined && throughRelay) this.send(flag, relay, true, now);
  }

  try(flag: PilaFlag, endpoint: Endpoint, now: Instant): void {
    this.#path.candidates.tried(endpoint, now);
    this.send(flag, endpoint, false, now);
  }

  /** Nobody answered, and that was long ago. */
  rest(): void {
    this.#sentAt = undefined;
    this.#proof.wipe();
  }

  send(flag: PilaFlag, to: Endpoint, relayed: boolean, now: Instant): void {
    this.#sentAt ??= new BoundedMap(MAX_PLACES);
    this.#sentAt.set(placeName(this.#path, to, relayed), now);
    const { exchange } = this.#sessions;
    this.#sender.send(exchange.frame(flag, this.#proof.ours(exchange.publicKey)), to, relayed);
  }
}

/** All candidates, the relay, and elsewhere. */
const MAX_PLACES = MAX_CANDIDATES + 2;
