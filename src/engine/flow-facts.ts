/** What rules ask about a flow, from those who know it: the trust book, the links, the registry's words about tags. */
import { toBase64 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { Flow, FlowTable } from "../policy/flow-table.ts";
import type { Direction, FlowFacts } from "../policy/rule.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { type NetworkId, type NodeId, networkId } from "../wire/ids.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import type { PeerTags } from "./peer-tags.ts";

export interface FlowFactsParts {
  readonly flows: FlowTable;
  readonly trust: TrustBook;
  readonly links: LinkTable;
  readonly tags: PeerTags;
  readonly crypto: Crypto;
}

export class FlowFactsFinder {
  readonly #parts: FlowFactsParts;
  /** An entry lives as long as the key that it is made of. */
  readonly #fingerprints = new WeakMap<Uint8Array, string>();

  constructor(parts: FlowFactsParts) {
    this.#parts = parts;
  }

  /** Of a flow that is not there yet; `port` of the side that did not begin, 0 without ports. */
  of(
    node: NodeId,
    network: NetworkId,
    direction: Direction,
    protocol: number,
    port: number,
    owner?: SocketOwner,
  ): FlowFacts {
    const record = this.#parts.trust.get(node);
    return {
      ...{ direction, protocol, port, node, network, owner },
      name: record?.hostname,
      fingerprint: this.fingerprintOf(record),
      tags: this.#parts.tags.of(node),
    };
  }

  /** Of an entry of the flow table; undefined for a flow of a peer that is gone or not trusted. */
  ofEntry(entry: number): FlowFacts | undefined {
    const { flows } = this.#parts;
    const node = this.#trustedPeerOf(entry);
    if (node === undefined) return undefined;
    const [protocol, direction] = [flows.protocolOf(entry), flows.directionOf(entry)];
    const port = direction === "in" ? flows.localPortOf(entry) : flows.remotePortOf(entry);
    const network = networkId(flows.networkOf(entry));
    return this.of(node, network, direction, protocol, hasPorts(protocol) ? port : 0, flows.ownerOf(entry));
  }

  /** Whether an entry of the flow table is of a peer that is trusted. */
  isTrusted(entry: number): boolean {
    return this.#trustedPeerOf(entry) !== undefined;
  }

  #trustedPeerOf(entry: number): NodeId | undefined {
    const { flows, links, trust } = this.#parts;
    const node = links.at(flows.linkOf(entry))?.node;
    return node !== undefined && trust.stateOf(node) === "mutual" ? node : undefined;
  }

  nodeOf(flow: Flow): NodeId | undefined {
    return this.#parts.links.at(flow.link)?.node;
  }

  /** `SHA256:` and base64; undefined while the peer's key is not known. */
  fingerprintOf(record: TrustRecord | undefined): string | undefined {
    const key = record?.publicKey;
    if (key === undefined) return undefined;
    const known = this.#fingerprints.get(key);
    if (known !== undefined) return known;
    const fingerprint = `SHA256:${toBase64(this.#parts.crypto.sha256(key)).replace(/=+$/, "")}`;
    this.#fingerprints.set(key, fingerprint);
    return fingerprint;
  }
}

export function hasPorts(protocol: number): boolean {
  return protocol === NEXT_HEADER.TCP || protocol === NEXT_HEADER.UDP;
}
