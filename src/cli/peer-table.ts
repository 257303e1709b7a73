/** Peers as table cells, the same words in every command that lists them. */
import type { PeerPath, PeerStatus, PeerTrust } from "../control/api.ts";
import { ago, bytes, type Cell, type Colour, peerName, printable, roundTrip, UNKNOWN } from "./format.ts";

import { leaseWords } from "./lease-words.ts";

export type Column = readonly [title: string, cell: (peer: PeerStatus) => Cell];

/** What one screen of `status` has room for. */
export const BRIEF_COLUMNS: readonly Column[] = [
  ["PEER", (peer) => peerName(peer)],
  ["ADDRESS", (peer) => peer.address],
  ["TRUST", (peer) => trustCell(peer.trust)],
  ["PATH", (peer) => pathWord(peer.path)],
  ["SESSION", (peer) => sessionWord(peer)],
  ["RTT", (peer) => roundTrip(peer.rttMs)],
  ["RX", (peer) => bytes(peer.rxBytes)],
  ["TX", (peer) => bytes(peer.txBytes)],
  ["HEARD", (peer) => ago(peer.lastReceivedAgoS)],
  ["NOTE", (peer) => printable(noteOf(peer))],
];

export const FULL_COLUMNS: readonly Column[] = [
  ...BRIEF_COLUMNS.slice(0, 2),
  ["PILOT", (peer) => peer.pilot],
  ["TRUST", (peer) => trustCell(peer.trust)],
  ["KIND", (peer) => (peer.kind === "unknown" ? UNKNOWN : peer.kind)],
  ["PATH", (peer) => pathWord(peer.path)],
  ["ENDPOINT", (peer) => (peer.endpoint === null ? UNKNOWN : printable(peer.endpoint))],
  ["RTT", (peer) => roundTrip(peer.rttMs)],
  ["RX", (peer) => `${bytes(peer.rxBytes)} (${peer.rxPackets})`],
  ["TX", (peer) => `${bytes(peer.txBytes)} (${peer.txPackets})`],
  ["SESSION", (peer) => sessionWord(peer)],
  ["KEYS", (peer) => ago(peer.lastHandshakeAgoS)],
  ...BRIEF_COLUMNS.slice(-2),
];

function noteOf({ note, lease }: PeerStatus): string {
  if (lease === null || lease.endedBy !== null) return note;
  return note === "" ? `lease: ${leaseWords(lease)}` : `${note}; lease: ${leaseWords(lease)}`;
}

/** Title and rows for `table`. */
export function peerRows(peers: readonly PeerStatus[], columns: readonly Column[]): Cell[][] {
  return [columns.map(([title]) => title), ...peers.map((peer) => columns.map(([, cell]) => cell(peer)))];
}

export function trustCell(trust: PeerTrust): Cell {
  const colour = TRUST_COLOURS[trust];
  return colour === undefined ? trust : { text: trust, colour };
}

export function pathWord(path: PeerPath): string {
  return path === "none" ? UNKNOWN : path;
}

function sessionWord({ session }: PeerStatus): string {
  return session === "none" ? UNKNOWN : session;
}

const TRUST_COLOURS: Partial<Record<PeerTrust, Colour>> = {
  mutual: "green",
  asked: "yellow",
  pending: "yellow",
  revoked: "red",
  "revoked-by-peer": "red",
  "lease-ended": "red",
};
