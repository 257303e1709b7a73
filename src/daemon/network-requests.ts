/**
 * The control API's answers about networks: each is a command to the registry and what came of it, and returns once the
 * interface has gained or lost the address.
 */
import type { Instant } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { PeerIdentity } from "../control/api.ts";
import type {
  NetworkBackend,
  NetworkCreateRequest,
  NetworkDeleteRequest,
  NetworkEntry,
  NetworkInviteReply,
  NetworkInviteRequest,
  NetworkInvitesReply,
  NetworkJoinRequest,
  NetworkLeaveReply,
  NetworkListReply,
  NetworkMembersReply,
  NetworkReply,
  NetworkRequest,
} from "../control/network-api.ts";
import type { Engine } from "../engine/engine.ts";
import { wallNow } from "../io/clock.ts";
import type { RegistryConnection } from "../io/registry-connection.ts";
import {
  type NetworkAnswer,
  type NetworkCommand,
  type NetworkEvent,
  type NetworkListing,
  networkCommandKey,
} from "../registry/network-commands.ts";
import { formatOverlayAddress, formatPilotAddress } from "../wire/address.ts";
import { type NetworkId, type NodeId, networkId, nodeId } from "../wire/ids.ts";
import type { OverlayInterface } from "./overlay-interface.ts";
import type { UpOptions } from "./up-options.ts";
import { Waiters } from "./waiters.ts";

export interface NetworkRequestsParts {
  readonly options: UpOptions;
  readonly engine: Engine;
  readonly connection: RegistryConnection;
  readonly face: OverlayInterface;
  input<T>(act: (at: Instant) => T): T;
  /** The node behind what a person typed, not this one. */
  find(text: string, signal: AbortSignal): Promise<NodeId>;
  identity(node: NodeId): PeerIdentity;
}

type Answer<Kind extends NetworkAnswer["kind"]> = Extract<NetworkAnswer, { kind: Kind }>;

export class NetworkRequests implements NetworkBackend {
  readonly #parts: NetworkRequestsParts;
  readonly #answers = new Waiters<string, NetworkEvent>();
  #applied: Promise<unknown> = Promise.resolve();

  constructor(parts: NetworkRequestsParts) {
    this.#parts = parts;
  }

  answered(event: NetworkEvent): void {
    this.#answers.settle(networkCommandKey(event.command), event);
  }

  interfaceChanged(): void {
    this.#applied = this.#parts.face.applyOrTell();
  }

  async ls(_request: object, signal: AbortSignal): Promise<NetworkListReply> {
    const { engine, connection } = this.#parts;
    const listed = connection.state === "ok" ? await this.#list(signal) : [];
    const known = new Map<NetworkId, NetworkListing | undefined>(
      engine.networks.memberships().map((network) => [network, undefined]),
    );
    for (const listing of listed) if (listing.network !== 0) known.set(listing.network, listing);
    return { networks: [...known].map(([network, listing]) => this.#entry(network, listing)) };
  }

  async create(request: NetworkCreateRequest, signal: AbortSignal): Promise<NetworkReply> {
    const { network } = await this.#ask<"done">({ kind: "create-network", ...request }, signal);
    await this.#applied;
    return { ...this.#reply(network), name: request.name };
  }

  async delete(request: NetworkDeleteRequest, signal: AbortSignal): Promise<NetworkReply> {
    const { network, name } = await this.#find(request.network, signal);
    await this.#ask({ kind: "delete-network", network, adminToken: request.adminToken }, signal);
    await this.#applied;
    return { ...this.#reply(network), name };
  }

  async join(request: NetworkJoinRequest, signal: AbortSignal): Promise<NetworkReply> {
    const { network, name } = await this.#find(request.network, signal);
    const token = request.token === undefined ? {} : { token: request.token };
    await this.#ask({ kind: "join-network", network, ...token }, signal);
    await this.#applied;
    return { ...this.#reply(network), name };
  }

  async leave(request: NetworkRequest, signal: AbortSignal): Promise<NetworkLeaveReply> {
    const { engine, connection } = this.#parts;
    const { network, name } = await this.#find(request.network, signal);
    if (!engine.networks.memberships().includes(network)) throw refused(`This node is not in network ${network}`);
    const isConnected = connection.state === "ok";
    const told = this.#send({ kind: "leave-network", network }, isConnected ? ANSWER_PATIENCE_MS : 0, signal);
    const registryTold = isConnected && (await told)?.answer !== undefined;
    await this.#applied;
    return { ...this.#reply(network), name, registryTold };
  }

  async invite(request: NetworkInviteRequest, signal: AbortSignal): Promise<NetworkInviteReply> {
    const { network, name } = await this.#find(request.network, signal);
    const node = await this.#parts.find(request.peer, signal);
    await this.#ask({ kind: "invite-to-network", network, node }, signal);
    return { network, name, peer: this.#parts.identity(node) };
  }

  async members(request: NetworkRequest, signal: AbortSignal): Promise<NetworkMembersReply> {
    const { network, name } = await this.#find(request.network, signal);
    const { members } = await this.#ask<"members">({ kind: "list-nodes", network }, signal);
    return {
      network,
      name,
      members: members.map(({ node, hostname }) => ({
        node,
        pilot: formatPilotAddress({ network, node }),
        address: formatOverlayAddress(this.#parts.options.prefix, { network, node }),
        hostname: hostname ?? this.#parts.identity(node).hostname,
        self: node === this.#parts.engine.node,
      })),
    };
  }

  async invites(_request: object, signal: AbortSignal): Promise<NetworkInvitesReply> {
    const { invites } = await this.#ask<"invites">({ kind: "poll-invites" }, signal);
    const wall = wallNow();
    return {
      invites: invites.map(({ network, name, inviter, at, expires }) => ({
        network,
        name: name || (this.#parts.engine.networks.nameOf(network) ?? null),
        inviter: this.#parts.identity(inviter),
        agoS: Math.max(0, Math.round((wall - at) / 1000)),
        expiresInS: expires === undefined ? null : Math.max(0, Math.round((expires - wall) / 1000)),
      })),
    };
  }

  accept(request: NetworkRequest, signal: AbortSignal): Promise<NetworkReply> {
    return this.#respond(request, true, signal);
  }

  decline(request: NetworkRequest, signal: AbortSignal): Promise<NetworkReply> {
    return this.#respond(request, false, signal);
  }

  async #respond(request: NetworkRequest, accept: boolean, signal: AbortSignal): Promise<NetworkReply> {
    const { network, name } = await this.#find(request.network, signal);
    await this.#ask({ kind: "respond-invite", network, accept }, signal);
    await this.#applied;
    return { ...this.#reply(network), name };
  }

  #reply(network: NetworkId): NetworkReply {
    const { engine, options } = this.#parts;
    const isMember = engine.networks.memberships().includes(network);
    const address = isMember ? formatOverlayAddress(options.prefix, { network, node: engine.node }) : null;
    return { network, name: engine.networks.nameOf(network) ?? null, address };
  }

  #entry(network: NetworkId, listing: NetworkListing | undefined): NetworkEntry {
    const { engine, options } = this.#parts;
    const first = formatOverlayAddress(options.prefix, { network, node: nodeId(0) });
    return {
      ...this.#reply(network),
      name: listing?.name ?? engine.networks.nameOf(network) ?? null,
      joinRule: listing?.joinRule ?? null,
      members: listing?.members ?? null,
      prefix: `${first}/64`,
      joined: engine.networks.hasJoined(network),
    };
  }

  /** The network behind what a person typed. */
  async #find(text: string, signal: AbortSignal): Promise<{ network: NetworkId; name: string | null }> {
    const { engine, connection } = this.#parts;
    const number = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
    if (number >= 1 && number <= 0xffff) {
      return { network: networkId(number), name: engine.networks.nameOf(networkId(number)) ?? null };
    }
    const member = engine.networks.memberships().find((network) => engine.networks.nameOf(network) === text);
    if (member !== undefined) return { network: member, name: text };
    if (connection.state !== "ok") throw registryDown();
    const found = (await this.#list(signal)).find((listing) => listing.name === text && listing.network !== 0);
    if (found !== undefined) return { network: found.network, name: found.name };
    throw new PilotError(
      "unknown_network",
      `There is no network ${text}`,
      "See which there are: pilot-tun network ls.",
    );
  }

  async #list(signal: AbortSignal): Promise<readonly NetworkListing[]> {
    return (await this.#ask<"networks">({ kind: "list-networks" }, signal)).networks;
  }

  async #ask<Kind extends NetworkAnswer["kind"]>(command: NetworkCommand, signal: AbortSignal): Promise<Answer<Kind>> {
    if (this.#parts.connection.state !== "ok") throw registryDown();
    const event = await this.#send(command, ANSWER_PATIENCE_MS, signal);
    if (event === undefined) throw new PilotError("timeout", "The registry did not answer in time", "Try again.");
    if (event.answer === undefined) throw refused(`The registry refused: ${event.error ?? "request failed"}`);
    return event.answer as Answer<Kind>; // the answer's kind goes with the command's
  }

  #send(command: NetworkCommand, patienceMs: number, signal: AbortSignal): Promise<NetworkEvent | undefined> {
    const answered = this.#answers.wait(networkCommandKey(command), patienceMs, signal);
    this.#parts.input((at) => this.#parts.engine.networks.request(command, at));
    return answered;
  }
}

function refused(message: string): PilotError {
  return new PilotError(
    "network_refused",
    message,
    "Check the network (pilot-tun network ls), its token, and whether this node was invited (pilot-tun network invites).",
  );
}

function registryDown(): PilotError {
  return new PilotError(
    "registry_down",
    "The registry cannot be reached, and only it knows",
    "See pilot-tun status; try again when the registry is back.",
  );
}

const ANSWER_PATIENCE_MS = 8_000;
