/**
 * What every link shares: the ports it acts through, the slots it draws from, and the typed arrays that the packet path
 * reads. Owned by the link table.
 */
import type { Crypto } from "../base/crypto.ts";
import type { Endpoint } from "../base/endpoint.ts";
import type { NodeId } from "../wire/ids.ts";
import type { DataPlane, StagedPacket } from "./data-plane.ts";
import type { ExchangeBudget } from "./exchange-screen.ts";
import type { LocalIdentity } from "./key-exchange.ts";
import type { Link } from "./link.ts";
import type { RelayKind } from "./path.ts";
import type { SlotPool } from "./session.ts";

export type LinkEvent =
  /** Keys are agreed, packets flow. */
  | { readonly kind: "up"; readonly link: Link }
  /** The peer has another key than before, and has shown it: it was most likely started anew. */
  | { readonly kind: "rekeyed"; readonly link: Link }
  /** From now on the session with the peer has keys, or others, that both agreed on inside the one before. */
  | { readonly kind: "agreed"; readonly link: Link }
  /** The peer, known to agree on keys, does not any more: nothing passes. */
  | { readonly kind: "unsecured"; readonly link: Link }
  /** The peer asks for the keys that it had: it forgot us, though it was not started anew. Anybody can make it look so. */
  | { readonly kind: "forgotten"; readonly link: Link }
  /** The peer fell silent for good; a new packet starts over. */
  | { readonly kind: "down"; readonly link: Link }
  /** Frames go another way from now on, proved by a frame. */
  | { readonly kind: "moved"; readonly link: Link }
  /** Where is the peer? Ask the registry. */
  | { readonly kind: "endpoint-wanted"; readonly link: Link }
  /** Provoke a frame of the peer under this key (or the current one): ping it. */
  | { readonly kind: "proof-wanted"; readonly link: Link; readonly keySlot: number | undefined }
  /** Provoke a frame straight from this endpoint: ping it there. */
  | { readonly kind: "direct-proof-wanted"; readonly link: Link; readonly endpoint: Endpoint }
  /** Provoke a frame through the relay, whatever the path is. */
  | { readonly kind: "relay-proof-wanted"; readonly link: Link }
  | { readonly kind: "hello-due"; readonly link: Link }
  | { readonly kind: "notice-due"; readonly link: Link }
  | { readonly kind: "mtu-probe-due"; readonly link: Link }
  | { readonly kind: "mtu-check-due"; readonly link: Link }
  /** These packets will not get through: tell the programs that sent them. */
  | { readonly kind: "unreachable"; readonly link: Link; readonly packets: readonly StagedPacket[] }
  /** The link is up, but its way is not the one that this packet must go. */
  | { readonly kind: "barred"; readonly link: Link; readonly packet: StagedPacket };

/** Timers that run for others, and what these are told. */
export const TIMER_EVENTS = {
  "hello-retry": "hello-due",
  "notice-retry": "notice-due",
  "mtu-probe": "mtu-probe-due",
  "mtu-check": "mtu-check-due",
} as const;

/** When the keys of a session are replaced. */
export interface RekeyLimits {
  readonly everyMs: number;
  /** Inner bytes, both directions. */
  readonly bytes: number;
  /** Inner packets, both directions. */
  readonly packets: number;
}

export interface LinkContext {
  readonly dataPlane: DataPlane;
  readonly crypto: Crypto;
  readonly local: LocalIdentity;
  readonly keySlots: SlotPool;
  readonly endpointSlots: SlotPool;
  /** Accept and offer the older key generation G1 (a downgrade; off unless the operator asks). */
  readonly allowLegacyKeys: boolean;
  /** Nothing goes straight to any peer. */
  readonly relayOnly: boolean;
  /** Per link index: the key slot to seal with (-1: none) and the endpoint slot. */
  readonly sendKey: Int32Array;
  readonly sendEndpoint: Int32Array;
  /** Per key slot: the link's index, -1 for none. */
  readonly linkOfKey: Int32Array;
  /** Per key slot: 1 when what opens under it may agree on keys, and nothing else. */
  readonly onlyAgrees: Uint8Array;
  /** Per link index: when each of LINK_TIMERS is due. */
  readonly timersAt: Float64Array;
  readonly rekey: RekeyLimits;
  readonly exchangeBudget: ExchangeBudget;
  /** The peer has once agreed on keys: nothing else passes between the two from then on. */
  mustAgree(node: NodeId): boolean;
  /** The beacon that relays, if one is known. */
  relay(): Endpoint | undefined;
  /** How that beacon is reached. */
  relayKind(): RelayKind;
  /** Whether this peer takes note of what shows it that its packets arrive. */
  wantsKeepalive(link: Link): boolean;
  /** `mayBreak`: the underlay may carry it in pieces. */
  transmit(to: Endpoint, datagram: Uint8Array, mayBreak: boolean): void;
  /** Sends a packet that waited, after everything that was transmitted before: the peer needs our exchange first. */
  release(keySlot: number, endpointSlot: number, packet: StagedPacket): void;
  emit(event: LinkEvent): void;
  /** A timer of this link was set or stopped. */
  timersChanged(link: Link): void;
}
