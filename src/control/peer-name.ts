/** What a peer is called where people read it. */
import { printable } from "../base/readable.ts";
import type { PeerIdentity } from "./api.ts";

/** `b.pilot`, or the Pilot address of a peer without a name. */
export function peerName(peer: Pick<PeerIdentity, "hostname" | "pilot">): string {
  return hostName(peer.hostname) ?? peer.pilot;
}

export function hostName(hostname: string | null): string | undefined {
  return hostname === null || hostname === "" ? undefined : printable(`${hostname}.pilot`);
}
