/**
 * What a request handler of the registry is given, and the checks they share: who signed, and how a refusal reads.
 * Handlers never throw; they return the reply.
 */
import { utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { Instant, WallClock } from "../base/instant.ts";
import { formatPilotAddress } from "../wire/address.ts";
import { type NodeId, networkId } from "../wire/ids.ts";
import { bytesField, nodeField, REQUEST_FAILED, type RegistryMessage, SIGNATURE_BYTES } from "../wire/registry.ts";
import type { BeaconList } from "./beacon-list.ts";
import type { LiveDirectory } from "./live-directory.ts";
import { type SourceLimits, sourceKey } from "./source-limits.ts";
import type { NodeRecord, Store } from "./store.ts";

/** One connection of a client, as long as it lasts. */
export class Conversation {
  /** Canonical text of the address it came from. */
  readonly sourceIp: string;
  readonly sourceKey: string;
  /** The inbox that was sent with the last reply, to be emptied when the client shows that it read it. */
  unconfirmedPoll: { readonly node: NodeId; readonly lastSerial: number } | undefined;
  /** The last request was refused for its rate: the edge should let this connection wait. */
  isThrottled = false;

  constructor(sourceIp: string) {
    this.sourceIp = sourceIp;
    this.sourceKey = sourceKey(sourceIp);
  }
}

/** What a request handler may use. */
export interface RequestContext {
  readonly store: Store;
  readonly crypto: Crypto;
  readonly live: LiveDirectory;
  readonly beacons: BeaconList;
  readonly newKeys: SourceLimits;
  /** Requests that present a join or admin token, per source: guesses are bounded. */
  readonly tokenAttempts: SourceLimits;
  readonly startedAtWall: WallClock;
  readonly adminToken: string | undefined;
  readonly rendezvousId: string | undefined;
  /** How long an invitation waits for its answer. */
  readonly inviteLifeMs: number;
  readonly conversation: Conversation;
  readonly now: Instant;
  readonly wall: WallClock;
  /** Tells the node, if the beacon knows it, that handshakes wait for it. */
  notify(node: NodeId): void;
}

export type Reply = RegistryMessage;

export type RequestHandler = (message: RegistryMessage, context: RequestContext) => Reply;

export function refusal(error: string): Reply {
  return { type: "error", error };
}

export function nodeNotFound(node: number): Reply {
  return refusal(`node ${node}: node not found`);
}

/** A node's address on the network that everybody belongs to. */
export function backboneAddress(node: NodeId): string {
  return formatPilotAddress({ network: networkId(0), node });
}

/** A request that the node named in `field` must have signed. */
export function signedBy(
  field: string,
  text: (node: NodeId) => string,
  handle: (node: NodeRecord, message: RegistryMessage, context: RequestContext) => Reply,
): RequestHandler {
  return (message, context) => {
    const checked = signer(message, field, text, context);
    return "refused" in checked ? checked.refused : handle(checked.node, message, context);
  };
}

/** The same where the signature also covers what the request is about: a peer, a network. */
export function signedAbout<Subject>(
  field: string,
  subjectOf: (message: RegistryMessage) => Subject | undefined,
  text: (node: NodeId, subject: Subject) => string,
  handle: (node: NodeRecord, subject: Subject, message: RegistryMessage, context: RequestContext) => Reply,
): RequestHandler {
  return (message, context) => {
    const subject = subjectOf(message);
    if (subject === undefined) return refusal(REQUEST_FAILED);
    const checked = signer(message, field, (node) => text(node, subject), context);
    return "refused" in checked ? checked.refused : handle(checked.node, subject, message, context);
  };
}

/** The node named in `field`, if the request carries its valid signature over `text`; else the refusal to send. */
export function signer(
  message: RegistryMessage,
  field: string,
  text: (node: NodeId) => string,
  context: RequestContext,
): { readonly node: NodeRecord } | { readonly refused: Reply } {
  const node = nodeField(message, field);
  if (node === undefined) return { refused: refusal(REQUEST_FAILED) };
  if (isUnsigned(message)) return { refused: refusal(SIGNATURE_REQUIRED) };
  const record = context.store.nodeById(node);
  if (record === undefined) return { refused: nodeNotFound(node) };
  if (!isSignedBy(record.publicKey, message, text(node), context)) return { refused: refusal(REQUEST_FAILED) };
  return { node: record };
}

export function isUnsigned(message: RegistryMessage): boolean {
  const signature = message["signature"];
  return signature === undefined || signature === null || signature === "";
}

export function isSignedBy(
  publicKey: Uint8Array,
  message: RegistryMessage,
  text: string,
  context: RequestContext,
): boolean {
  const signature = bytesField(message, "signature", SIGNATURE_BYTES);
  return signature !== undefined && context.crypto.ed25519Verify(publicKey, utf8(text), signature);
}

export const SIGNATURE_REQUIRED = "signature required for authenticated node";
