/**
 * What a registry's replies mean, as events for the engine. A registry may lie or be broken: every field is checked, an
 * answer about another node than the one asked for is a failure, and lists are cut to what a correct registry could send.
 */
import { fromHex } from "../base/bytes.ts";
import type { Endpoint } from "../base/endpoint.ts";
import type { WallClock } from "../base/instant.ts";
import { type NetworkId, type NodeId, networkId, type PilotAddress } from "../wire/ids.ts";
import {
  booleanField,
  integerField,
  isHostname,
  MAX_JUSTIFICATION_CHARS,
  MAX_TAG_CHARS,
  MAX_TAGS,
  nodeField,
  objectsField,
  publicKeyField,
  RENDEZVOUS_ID_BYTES,
  type RegistryMessage,
  textField,
  textsField,
} from "../wire/registry.ts";
import { isUnicast, parseEndpoint } from "../wire/underlay-address.ts";
import type { RegistryCommand } from "./commands.ts";
import type { KeyRotationEvent } from "./key-rotation.ts";
import { isNetworkCommand, type NetworkEvent, networkAnswer } from "./network-commands.ts";

export type RegistryState = "down" | "connecting" | "registering" | "ok";

export interface LookupResult {
  readonly publicKey: Uint8Array;
  readonly hostname?: string;
  readonly networks: readonly NetworkId[];
  readonly isPublic: boolean;
  /** What the node calls itself. */
  readonly tags: readonly string[];
  readonly endpoint?: Endpoint;
}

export type RegistryEvent =
  | {
      readonly kind: "registered";
      readonly node: NodeId;
      readonly address: PilotAddress;
      readonly hostname?: string;
      readonly hostnameError?: string;
      /** Where the registry will send others. */
      readonly observed: Endpoint | undefined;
      /** Which rendezvous this is, if it says so: 32 hex digits. */
      readonly rendezvous: string | undefined;
    }
  | {
      readonly kind: "looked-up";
      readonly node: NodeId;
      readonly result: LookupResult | undefined;
      readonly error?: string;
    }
  | {
      readonly kind: "resolved";
      readonly node: NodeId;
      readonly endpoint: Endpoint | undefined;
      readonly lanEndpoints: readonly Endpoint[];
      readonly error?: string;
    }
  /** `isPair` undefined: it did not say. */
  | { readonly kind: "trust-checked"; readonly node: NodeId; readonly isPair: boolean | undefined }
  | { readonly kind: "hostname"; readonly name: string; readonly node: NodeId | undefined; readonly error?: string }
  | {
      readonly kind: "handshake-request";
      readonly from: NodeId;
      readonly reason: string;
      readonly at: WallClock;
      /** As the registry says; not proven by the request. */
      readonly publicKey?: Uint8Array;
    }
  | { readonly kind: "handshake-response"; readonly from: NodeId; readonly accepted: boolean; readonly at: WallClock }
  | NetworkEvent
  | KeyRotationEvent
  | { readonly kind: "command-done"; readonly command: RegistryCommand }
  | { readonly kind: "command-failed"; readonly command: RegistryCommand; readonly error: string }
  | { readonly kind: "state"; readonly state: RegistryState; readonly error?: string };

/** What to tell about a command whose reply came; `reply` has the type that was expected. */
export function commandEvent(command: RegistryCommand, reply: RegistryMessage): RegistryEvent {
  if (isNetworkCommand(command)) {
    const answer = networkAnswer(command, reply);
    return answer === undefined ? failureEvent(command, BAD_REPLY) : { kind: "network", command, answer };
  }
  switch (command.kind) {
    case "lookup":
      return lookedUp(command.node, reply);
    case "resolve":
      return resolved(command.node, reply);
    case "resolve-hostname": {
      const node = nodeField(reply, "node_id");
      if (node === undefined) return failureEvent(command, BAD_REPLY);
      return { kind: "hostname", name: command.name, node };
    }
    case "check-trust":
      return { kind: "trust-checked", node: command.node, isPair: booleanField(reply, "trusted") };
    default:
      return { kind: "command-done", command };
  }
}

export function failureEvent(command: RegistryCommand, error: string): RegistryEvent {
  if (isNetworkCommand(command)) return { kind: "network", command, answer: undefined, error };
  switch (command.kind) {
    case "check-trust":
      return { kind: "trust-checked", node: command.node, isPair: undefined };
    case "lookup":
      return { kind: "looked-up", node: command.node, result: undefined, error };
    case "resolve":
      return { kind: "resolved", node: command.node, endpoint: undefined, lanEndpoints: [], error };
    case "resolve-hostname":
      return { kind: "hostname", name: command.name, node: undefined, error };
    default:
      return { kind: "command-failed", command, error };
  }
}

/** Undefined when the reply names no node: then we are not registered. */
export function registeredEvent(reply: RegistryMessage): Extract<RegistryEvent, { kind: "registered" }> | undefined {
  const node = nodeField(reply, "node_id");
  if (node === undefined) return undefined;
  const hostname = textField(reply, "hostname", 63);
  const hostnameError = textField(reply, "hostname_error", MAX_ERROR_CHARS);
  return {
    kind: "registered",
    node,
    address: { network: networkId(0), node },
    ...(hostname !== undefined && isHostname(hostname) ? { hostname } : {}),
    ...(hostnameError === undefined ? {} : { hostnameError }),
    observed: endpointField(reply, "observed_addr"),
    rendezvous: rendezvousField(reply),
  };
}

function rendezvousField(reply: RegistryMessage): string | undefined {
  const text = textField(reply, "rendezvous_id", 2 * RENDEZVOUS_ID_BYTES);
  return text !== undefined && fromHex(text)?.length === RENDEZVOUS_ID_BYTES ? text : undefined;
}

/** Everything that waited at the registry. The lists are emptied by being read, so nothing readable may be left out. */
export function handshakeEvents(reply: RegistryMessage): RegistryEvent[] {
  const events: RegistryEvent[] = [];
  for (const request of objectsField(reply, "requests", MAX_LIST)) {
    const from = nodeField(request, "from_node_id");
    if (from === undefined) continue;
    const publicKey = publicKeyField(request, "public_key");
    events.push({
      kind: "handshake-request",
      from,
      reason: textField(request, "justification", MAX_JUSTIFICATION_CHARS) ?? "",
      at: unixTime(request),
      ...(publicKey === undefined ? {} : { publicKey }),
    });
  }
  for (const response of objectsField(reply, "responses", MAX_LIST)) {
    const from = nodeField(response, "from_node_id");
    const accepted = booleanField(response, "accept");
    if (from === undefined || accepted === undefined) continue;
    events.push({ kind: "handshake-response", from, accepted, at: unixTime(response) });
  }
  return events;
}

/** Why a request was refused, in the registry's words, cut to a length that fits a status line. */
export function errorText(reply: RegistryMessage): string {
  const error = reply["error"];
  return typeof error === "string" && error !== "" ? error.slice(0, MAX_ERROR_CHARS) : BAD_REPLY;
}

function lookedUp(node: NodeId, reply: RegistryMessage): RegistryEvent {
  const publicKey = publicKeyField(reply, "public_key");
  if (nodeField(reply, "node_id") !== node || publicKey === undefined) {
    return { kind: "looked-up", node, result: undefined, error: BAD_REPLY };
  }
  const hostname = textField(reply, "hostname", 63);
  const endpoint = endpointField(reply, "real_addr");
  const result: LookupResult = {
    publicKey,
    networks: networksField(reply),
    isPublic: booleanField(reply, "public") ?? false,
    tags: textsField(reply, "tags", MAX_TAGS, MAX_TAG_CHARS) ?? [],
    ...(hostname !== undefined && isHostname(hostname) ? { hostname } : {}),
    ...(endpoint === undefined ? {} : { endpoint }),
  };
  return { kind: "looked-up", node, result };
}

function resolved(node: NodeId, reply: RegistryMessage): RegistryEvent {
  if (nodeField(reply, "node_id") !== node) {
    return { kind: "resolved", node, endpoint: undefined, lanEndpoints: [], error: BAD_REPLY };
  }
  // Who registered without an address, or as relay-only, is reached through the beacon, and does not want to be looked for.
  if (reply["real_addr"] === "" || booleanField(reply, "relay_only") === true) {
    return { kind: "resolved", node, endpoint: undefined, lanEndpoints: [] };
  }
  const lanEndpoints = (textsField(reply, "lan_addrs", MAX_LAN_ADDRS, MAX_ADDR_CHARS) ?? [])
    .map(parseEndpoint)
    .filter((endpoint) => endpoint !== undefined && isUnicast(endpoint)) as Endpoint[];
  const endpoint = endpointField(reply, "real_addr");
  const isReachable = endpoint !== undefined || lanEndpoints.length > 0;
  return { kind: "resolved", node, endpoint, lanEndpoints, ...(isReachable ? {} : { error: BAD_REPLY }) };
}

function endpointField(message: RegistryMessage, field: string): Endpoint | undefined {
  const text = textField(message, field, MAX_ADDR_CHARS);
  const endpoint = text === undefined ? undefined : parseEndpoint(text);
  return endpoint !== undefined && isUnicast(endpoint) ? endpoint : undefined;
}

function networksField(message: RegistryMessage): NetworkId[] {
  const value = message["networks"];
  if (!Array.isArray(value)) return [];
  return value
    .slice(0, MAX_LIST)
    .filter((item): item is number => Number.isInteger(item) && item >= 0 && item <= 65535)
    .map(networkId);
}

function unixTime(message: RegistryMessage): WallClock {
  return ((integerField(message, "timestamp") ?? 0) * 1000) as WallClock;
}

const BAD_REPLY = "the registry's answer makes no sense";
const MAX_ERROR_CHARS = 200;
const MAX_LIST = 2048;
const MAX_LAN_ADDRS = 16;
const MAX_ADDR_CHARS = 64;
