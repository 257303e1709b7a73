/** How our half of the key exchange leaves: to everywhere the peer may be, and back to where one of its own came from. */
import type { Endpoint } from "../base/endpoint.ts";
import { after, type Instant } from "../base/instant.ts";
import type { PilaFlag } from "./key-exchange.ts";
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
  #sentAt: Instant | undefined;

  constructor(context: LinkContext, sessions: Sessions, path: Path, sender: LinkSender) {
    this.#context = context;
    this.#sessions = sessions;
    this.#path = path;
    this.#sender = sender;
  }

  /** To answer the same key again so soon would be an answer to a copy. */
  wasJustSent(now: Instant): boolean {
    return this.#sentAt !== undefined && after(this.#sentAt, timing.SAME_KEY_ANSWER_MS) > now;
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

  send(flag: PilaFlag, to: Endpoint, relayed: boolean, now: Instant): void {
    this.#sentAt = now;
    this.#sender.send(this.#sessions.exchange.frame(flag), to, relayed);
  }
}
