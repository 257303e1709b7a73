/**
 * Who holds a hostname. A name stays with its node while that is offline, so that nobody slips into a known name during
 * a restart; a node that was not seen for a month loses it to the next who asks.
 */
import type { NodeId } from "../wire/ids.ts";
import type { RequestContext } from "./request-context.ts";

/** True when `node` may have the name; a long-gone holder loses it here. */
export function takeHostname(hostname: string, node: NodeId, context: RequestContext): boolean {
  const holder = context.store.nodeByHostname(hostname);
  if (holder === undefined || holder.node === node) return true;
  if (context.wall - holder.seenAt < NAME_KEPT_MS) return false;
  context.store.updateNode({ ...holder, hostname: undefined });
  return true;
}

/** Who holds it is not said: the holder may be private. */
export function hostnameTaken(hostname: string): string {
  return `hostname "${hostname}" already in use`;
}

const NAME_KEPT_MS = 30 * 24 * 3_600_000;
