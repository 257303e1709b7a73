/**
 * Which node owns an inner address, and which addresses are ours. The mapping is a pure function of the address (no
 * table to keep): prefix 48 | network 16 | sub-address 32 | node 32. Sub-address 0 is the node itself; others are not
 * handed out yet and have no route.
 */
import { readU16, readU32 } from "../base/bytes.ts";
import { type NetworkId, type NodeId, nodeId } from "../wire/ids.ts";

export class Routes {
  /** The first four bytes of every overlay address, as a signed word. */
  readonly prefixWord: number;
  readonly #prefix: Uint8Array;
  readonly #local: NodeId;
  /** Networks this node has an address in. Bound: 65,536 by its type; replaced whole. */
  #networks: ReadonlySet<number>;

  /** `prefix`: the first six bytes of every overlay address. */
  constructor(prefix: Uint8Array, local: NodeId, networks: Iterable<NetworkId>) {
    this.#prefix = prefix.slice(0, 6);
    this.prefixWord = readU32(prefix, 0) | 0;
    this.#local = local;
    this.#networks = new Set(networks);
  }

  setNetworks(networks: Iterable<NetworkId>): void {
    this.#networks = new Set(networks);
  }

  /** True for an address of this node. */
  isLocal(bytes: Uint8Array, offset: number): boolean {
    return this.ownerOf(bytes, offset) === this.#local;
  }

  /** The node behind an overlay address in a network we are in; undefined: no route. */
  ownerOf(bytes: Uint8Array, offset: number): NodeId | undefined {
    for (let i = 0; i < 6; i++) if (bytes[offset + i] !== this.#prefix[i]) return undefined;
    if (!this.#networks.has(readU16(bytes, offset + 6))) return undefined;
    if (readU32(bytes, offset + 8) !== 0) return undefined;
    const node = readU32(bytes, offset + 12);
    return node === 0 || node === BROADCAST ? undefined : nodeId(node);
  }
}

const BROADCAST = 0xffffffff;
