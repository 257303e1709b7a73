/**
 * Who may locate whom. A pair is two consents, one in each direction; one side alone never makes a pair.
 *
 * The reference makes a pair from a single signed `report_trust` or `respond_handshake`, so anybody can declare himself
 * trusted by any node and then resolve it (pilot protocol §11.12). Here every such call counts as the consent of the node
 * that signed it, and of nobody else. What counts as speaking for connection with a peer:
 *   - `request_handshake` to it (who asks, wants), `report_trust` for it, `respond_handshake` with accept for it.
 * Unmodified daemons still reach each other:
 *   - relayed handshake (always, for private peers): A's request is A's consent; B's approval calls `report_trust` and
 *     `respond_handshake`, either of which is B's. The pair stands before A's next poll tells it to dial.
 *   - direct handshake on port 444: B approves and reports, its accept reaches A, A reports: both have spoken.
 *   - both ask at the registry at once: both requests are consents, as both daemons then conclude "mutual".
 *   - crossing networks: members of a common network need no pair at all.
 *   The one case that needs one more step: a direct request whose direct accept is lost. A has not spoken here, so B's
 *   relayed answer is not delivered (see handshakes.ts); A asks again, through the registry if need be.
 *
 * A revocation withdraws the caller's own consent, what the caller had told the other, and the other's answers that still
 * wait, so that a queued approval cannot restore what was revoked. The other side's consent and its request stay: they are
 * that side's to withdraw, and alone they open nothing. The request may even be newer than the revocation, which the two
 * told each other without this registry before it heard of it.
 */
import type { NodeId } from "../wire/ids.ts";
import type { NodeRecord, Store } from "./store.ts";

export function isPair(store: Store, a: NodeId, b: NodeId): boolean {
  return store.hasConsent(a, b) && store.hasConsent(b, a);
}

/** False when the node has given as many consents as one node may. */
export function giveConsent(store: Store, from: NodeId, to: NodeId): boolean {
  if (store.hasConsent(from, to)) return true;
  if (store.countConsents(from, MAX_CONSENTS_PER_NODE) >= MAX_CONSENTS_PER_NODE) return false;
  store.addConsent(from, to);
  return true;
}

/** False when the node had given no consent. */
export function withdrawConsent(store: Store, from: NodeId, to: NodeId): boolean {
  store.removeInboxFrom(from, to, "response");
  for (const kind of ["request", "response"] as const) store.removeInboxFrom(to, from, kind);
  return store.removeConsent(from, to);
}

/** The privacy rule: where a node is, is told to its pairs, to members of a common network, and of a public node to all. */
export function mayLocate(store: Store, requester: NodeId | undefined, target: NodeRecord): boolean {
  if (target.isPublic) return true;
  if (requester === undefined) return false;
  if (requester === target.node) return true;
  return isPair(store, requester, target.node) || shareNetwork(store, requester, target.node);
}

/** What a node is called is told also to those whom it asked itself. */
export function mayName(store: Store, requester: NodeId | undefined, target: NodeRecord): boolean {
  if (mayLocate(store, requester, target)) return true;
  return requester !== undefined && store.hasConsent(target.node, requester);
}

export function shareNetwork(store: Store, a: NodeId, b: NodeId): boolean {
  const networks = store.networksOf(a);
  if (networks.length === 0) return false;
  const others = new Set(store.networksOf(b));
  return networks.some((network) => others.has(network));
}

const MAX_CONSENTS_PER_NODE = 16_384;
