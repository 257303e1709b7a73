/**
 * The relay of trust handshakes: requests and answers wait in the target's inbox until it polls (pilot protocol §7.3).
 *
 * A poll does not empty the inbox at once. The list that was sent is removed when the same connection makes its next
 * request, which it can only do after it read the reply; a reply that is lost with its connection loses nothing.
 * An answer is delivered only to a node that had spoken first: the reference's daemon takes any accept for trust without
 * checking that it had asked (pilot protocol §7.2), and so could be made to trust a stranger.
 */
import type { WallClock } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";
import { giveConsent, withdrawConsent } from "./consent.ts";
import type { InboxItem, Store } from "./store.ts";

export type RequestOutcome = "delivered" | "already-pending" | "inbox-full" | "too-many-consents";

export function requestHandshake(
  store: Store,
  from: NodeId,
  to: NodeId,
  justification: string,
  at: WallClock,
): RequestOutcome {
  if (store.hasInboxItem(to, "request", from)) return "already-pending";
  if (store.countInbox(to, "request") >= MAX_REQUESTS_WAITING) return "inbox-full";
  if (!giveConsent(store, from, to)) return "too-many-consents";
  store.addInboxItem(to, { kind: "request", from, justification, accept: false, at });
  return "delivered";
}

/** True when an answer now waits for `peer`. */
export function respondHandshake(store: Store, node: NodeId, peer: NodeId, accept: boolean, at: WallClock): boolean {
  const wasAsked = store.hasConsent(peer, node);
  if (accept) {
    if (!giveConsent(store, node, peer)) return false;
  } else {
    // A refusal ends the request too: a later report by this side alone must not complete it.
    withdrawConsent(store, node, peer);
    store.removeConsent(peer, node);
    store.removeInboxFrom(node, peer, "request");
  }
  if (!wasAsked || store.countInbox(peer, "response") >= MAX_RESPONSES_WAITING) return false;
  store.addInboxItem(peer, { kind: "response", from: node, justification: "", accept, at });
  return true;
}

export interface Polled {
  readonly items: readonly InboxItem[];
  /** What `Store.removeInboxUpTo` takes once the poller is known to have read them. */
  readonly lastSerial: number;
}

export function pollInbox(store: Store, node: NodeId): Polled | undefined {
  const items = store.inbox(node);
  const last = items.at(-1);
  return last === undefined ? undefined : { items, lastSerial: last.serial };
}

const MAX_REQUESTS_WAITING = 100;
/** Only nodes that this one asked can answer, so the bound is about storage, not about abuse. */
const MAX_RESPONSES_WAITING = 1024;
