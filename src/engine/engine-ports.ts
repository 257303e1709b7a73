/** What an engine is made of, what it tells the edge, and what `status` shows of a link. */
import type { AuditSink } from "../audit/record.ts";
import type { Crypto } from "../base/crypto.ts";
import type { Endpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import type { BeaconClient } from "../beacon/client.ts";
import type { Flow } from "../policy/flow-table.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import type { RegistryClient } from "../registry/client.ts";
import type { KeyRotationEvent } from "../registry/key-rotation.ts";
import type { NetworkEvent } from "../registry/network-commands.ts";
import type { LeaseTime } from "../trust/lease.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { DataPlane } from "../tunnel/data-plane.ts";
import type { RekeyLimits } from "../tunnel/link-context.ts";
import type { PathKind } from "../tunnel/path.ts";
import type { SessionLevel } from "../tunnel/session.ts";
import type { OverlayPrefix } from "../wire/address.ts";
import type { NodeId } from "../wire/ids.ts";
import type { PeerKind } from "./bridge-conversation.ts";
import type { ExplanationEvent } from "./explanations.ts";
import type { StoredNetworks } from "./networks.ts";
import type { OwnerQuestion } from "./owner-questions.ts";
import type { StoredTags } from "./peer-tags.ts";
import type { Pong } from "./pings.ts";

export interface EngineOptions {
  readonly prefix: OverlayPrefix;
  readonly node: NodeId;
  /** The node's key; both are read whenever they are used, for a rotation replaces them. */
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly mtuBytes: number;
  /** Port of the tunnel socket, for the registry. */
  readonly listenPort: number;
  readonly allowLegacyKeys: boolean;
  /** Where frames for peers go that cannot be reached directly; also where beacon messages must come from. */
  readonly beaconEndpoint: Endpoint | undefined;
  /** The edge can reach the beacon over TCP when UDP is blocked. */
  readonly hasBeaconTcp?: boolean;
  /** Everything goes through the beacon: peers do not learn where this node is. */
  readonly relayOnly?: boolean;
  /** Endpoints of peers from an earlier run. */
  readonly endpoints: ReadonlyMap<NodeId, Endpoint>;
  /** What peers were in an earlier run. */
  readonly kinds?: ReadonlyMap<NodeId, PeerKind>;
  /** Be a plain agent to every peer: say no hello, take no packets, speak streams, datagrams and pings alone. */
  readonly plainOnly?: boolean;
  /** When the keys of a session are replaced; the defaults unless told. */
  readonly rekey?: Partial<RekeyLimits>;
  /** False: as a pilot-tun that does not agree on keys. */
  readonly agreesOnKeys?: boolean;
  /** What the clock of leases shows at the start; 0 unless told. */
  readonly leaseNow?: LeaseTime;
  /** Memberships from an earlier run. */
  readonly networks?: StoredNetworks;
  /** Tags of peers from an earlier run. */
  readonly tags?: StoredTags;
}

export interface EngineParts {
  readonly crypto: Crypto;
  readonly dataPlane: DataPlane;
  readonly registry: RegistryClient;
  readonly beacon: BeaconClient | undefined;
  readonly trust: TrustBook;
  /** Where what happens is written down; absent: nowhere. */
  readonly audit?: AuditSink | undefined;
}

/** A flow of which the audit log tells that it began. */
export interface OpenedFlow {
  owner: SocketOwner | undefined;
}

export type EngineEvent =
  /** Whose local socket has this flow? The answer goes to `answerOwner`. */
  | { readonly kind: "owner-wanted"; readonly question: OwnerQuestion }
  /** Whose local socket has this flow? For its record alone: `opened.owner` is read when that is written. */
  | { readonly kind: "flow-recorded"; readonly flow: Flow; readonly opened: OpenedFlow }
  | { readonly kind: "tags-changed" }
  /** `mayWait`: nothing would be lost with it that is not heard again. */
  | { readonly kind: "trust-changed"; readonly mayWait: boolean }
  | { readonly kind: "endpoints-changed" }
  | { readonly kind: "kinds-changed" }
  | { readonly kind: "networks-changed" }
  | NetworkEvent
  | KeyRotationEvent
  | { readonly kind: "deregistered"; readonly error?: string | undefined }
  | ExplanationEvent
  /** A connection to the beacon shall be open, or not. */
  | { readonly kind: "beacon-tcp"; readonly wanted: boolean }
  /** What was found of the way to the beacon: IP bytes that pass; undefined when nothing came back. */
  | { readonly kind: "beacon-mtu"; readonly bytes: number | undefined }
  | { readonly kind: "pong"; readonly pong: Pong }
  | { readonly kind: "revocation-acknowledged"; readonly node: NodeId }
  | {
      readonly kind: "hostname";
      readonly name: string;
      readonly node: NodeId | undefined;
      readonly error: string | undefined;
    };

/** What `status` shows of a link. */
export interface LinkFacts {
  readonly path: PathKind;
  readonly endpoint: Endpoint | undefined;
  readonly rttMs: number | undefined;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly rxPackets: number;
  readonly txPackets: number;
  readonly establishedAt: Instant | undefined;
  readonly lastReceivedAt: Instant | undefined;
  readonly isUp: boolean;
  readonly kind: PeerKind;
  /** What the session is made of, and since when its keys are what they are; undefined while there is none. */
  readonly security: { readonly level: SessionLevel; readonly since: Instant } | undefined;
  /** The largest inner packet for the peer. */
  readonly mtuBytes: number;
  /** IP bytes that the underlay is known to carry to it. */
  readonly pathMtuBytes: number | undefined;
}

/** For metrics. */
export interface EngineCounters {
  /** That came up since the start. */
  readonly sessions: number;
  /** Keys that were agreed on inside sessions, with those that replaced others. */
  readonly agreements: number;
  readonly flows: number;
  /** Packets that wait for keys. */
  readonly staged: number;
  /** New flows, judged by the policy. */
  readonly allowed: number;
  readonly denied: number;
}
