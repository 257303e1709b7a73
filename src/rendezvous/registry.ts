/**
 * The registry: one request in, one reply out, over a store and a list of who is live (pilot protocol §6).
 * It speaks the newest generation and accepts the older. Requests that change a node, and those that reveal where a
 * node is, are verified against that node's key; what is unknown and what is forbidden get the same text. It never
 * throws on a request, and it knows no socket: who asks comes in as a `Conversation`, the time as `now` and `wall`.
 *
 * Where it is stricter than the reference, by intent: heartbeats are always verified; one side alone makes no trust pair
 * (consent.ts); `owner` never hands a node to another key; a name stays with its key while the key is offline; the name
 * and tags of a private node are told only to whom may know it; `punch` obeys the same rule as `resolve`.
 */
import type { Crypto } from "../base/crypto.ts";
import type { Instant, WallClock } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";
import { REQUEST_FAILED, type RegistryMessage } from "../wire/registry.ts";
import { BeaconList } from "./beacon-list.ts";
import { DIRECTORY_REQUESTS } from "./directory-requests.ts";
import { LiveDirectory } from "./live-directory.ts";
import { NETWORK_REQUESTS } from "./network-requests.ts";
import { PROFILE_REQUESTS } from "./profile-requests.ts";
import { REGISTRATION_REQUESTS } from "./registration-requests.ts";
import { type Conversation, type Reply, type RequestContext, type RequestHandler, refusal } from "./request-context.ts";
import { RequestCounts } from "./request-counts.ts";
import type { RequestFrame } from "./request-frame.ts";
import { type RateLimit, SourceLimits } from "./source-limits.ts";
import type { Store } from "./store.ts";
import { TRUST_REQUESTS } from "./trust-requests.ts";

export interface RegistryOptions {
  readonly store: Store;
  readonly crypto: Crypto;
  readonly startedAt: Instant;
  readonly startedAtWall: WallClock;
  /** Told to every node, which proves its number to this rendezvous' beacon with it. */
  readonly rendezvousId?: string;
  /** Lets a beacon on another address than the asking one be listed. */
  readonly adminToken?: string;
  /** How long an invitation into a network waits for its answer; 30 days unless told. */
  readonly inviteLifeMs?: number;
  readonly limits?: Partial<RegistryLimits>;
}

export interface RegistryLimits {
  /** Requests of any kind, per source. */
  readonly requests: RateLimit;
  /** Keys never seen before, per source. */
  readonly newKeys: RateLimit;
}

/** Generous: a source may be the only public address of a whole site. */
export const DEFAULT_REGISTRY_LIMITS: RegistryLimits = {
  requests: { perSecond: 2000, burst: 10_000 },
  newKeys: { perSecond: 10, burst: 2000 },
};

export class RegistryServer {
  readonly counts = new RequestCounts((type) => REQUEST_HANDLERS.has(type));
  readonly #options: RegistryOptions;
  readonly #live: LiveDirectory;
  readonly #beacons = new BeaconList();
  readonly #requests: SourceLimits;
  readonly #newKeys: SourceLimits;
  readonly #tokenAttempts = new SourceLimits(TOKEN_ATTEMPTS);
  /** Nodes to notify, without repeats; bounded, the edge drains it after every request. */
  readonly #notices = new Set<NodeId>();

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.#live = new LiveDirectory(options.startedAt);
    this.#requests = new SourceLimits(options.limits?.requests ?? DEFAULT_REGISTRY_LIMITS.requests);
    this.#newKeys = new SourceLimits(options.limits?.newKeys ?? DEFAULT_REGISTRY_LIMITS.newKeys);
  }

  /** A request in, its reply out, as the frame encodes it; anything that is no known request is refused. */
  handleFrame(frame: RequestFrame, conversation: Conversation, now: Instant, wall: WallClock): string | Uint8Array {
    conversation.isThrottled = !this.#requests.take(conversation.sourceKey, now, frame.cost);
    if (conversation.isThrottled) return frame.encode(this.#limited());
    return frame.encode(this.#dispatch(frame.message(), conversation, now, wall));
  }

  /** A node that the beacon should tell to poll its handshakes. */
  pollNotice(): NodeId | undefined {
    for (const node of this.#notices) {
      this.#notices.delete(node);
      return node;
    }
    return undefined;
  }

  #dispatch(message: RegistryMessage, conversation: Conversation, now: Instant, wall: WallClock): Reply {
    this.#confirmPoll(conversation);
    const type = message["type"];
    const handler = typeof type === "string" ? REQUEST_HANDLERS.get(type) : undefined;
    const reply = handler === undefined ? undefined : handler(message, this.#context(conversation, now, wall));
    this.counts.add(type, reply === undefined || reply["type"] === "error" ? "refused" : "ok");
    return reply ?? refusal(REQUEST_FAILED);
  }

  /** The request was not looked at, so its type is not known. */
  #limited(): Reply {
    this.counts.add(undefined, "limited");
    return refusal("rate limited");
  }

  #confirmPoll(conversation: Conversation): void {
    const poll = conversation.unconfirmedPoll;
    if (poll === undefined) return;
    conversation.unconfirmedPoll = undefined;
    this.#options.store.removeInboxUpTo(poll.node, poll.lastSerial);
  }

  #context(conversation: Conversation, now: Instant, wall: WallClock): RequestContext {
    return {
      store: this.#options.store,
      crypto: this.#options.crypto,
      live: this.#live,
      beacons: this.#beacons,
      newKeys: this.#newKeys,
      tokenAttempts: this.#tokenAttempts,
      startedAtWall: this.#options.startedAtWall,
      adminToken: this.#options.adminToken,
      rendezvousId: this.#options.rendezvousId,
      inviteLifeMs: this.#options.inviteLifeMs ?? INVITE_LIFE_MS,
      conversation,
      now,
      wall,
      notify: (node) => {
        if (this.#notices.size < MAX_NOTICES) this.#notices.add(node);
      },
    };
  }
}

/** Generous for a site that joins in one go, and hopeless for guessing. */
const TOKEN_ATTEMPTS: RateLimit = { perSecond: 1, burst: 200 };
const MAX_NOTICES = 1024;
const INVITE_LIFE_MS = 30 * 24 * 3_600_000;

/** By `type` of the request. A map, not an object: a request must not reach inherited names. */
const REQUEST_HANDLERS = new Map<string, RequestHandler>(
  Object.entries({
    ...REGISTRATION_REQUESTS,
    ...DIRECTORY_REQUESTS,
    ...NETWORK_REQUESTS,
    ...PROFILE_REQUESTS,
    ...TRUST_REQUESTS,
  }),
);
