/**
 * Turns TCP packets around on the TUN, so that the kernel itself ends the connections between local programs and plain
 * agents: no TCP of our own. A connection has two sides, both between this host L and the agent's address R:
 *
 *     program  L:p ⇄ R:q          daemon  L:d ⇄ R:n
 *
 * A packet that leaves on one side comes back in on the other: L:p → R:q becomes R:n → L:d, and L:d → R:n becomes
 * R:q → L:p. The program's side may be in any network that both nodes are in; the daemon's is always in network 0, so that
 * one listener serves all. Swapping addresses leaves the pseudo-header's sum as it is; for another network both kinds of
 * checksum are corrected, and a complete one for the ports too (RFC 1624).
 */
import { readU16, writeU16 } from "../../base/bytes.ts";
import { networkAt, writeNetwork } from "../../wire/address.ts";
import { updateChecksum } from "../../wire/checksum.ts";
import type { NetworkId, NodeId } from "../../wire/ids.ts";
import { IPV6, IPV6_HEADER_BYTES } from "../../wire/ipv6.ts";
import { TCP } from "../../wire/tcp.ts";

/** One side of a connection: the network of both its addresses, and the ports. */
export interface NatSide {
  readonly network: NetworkId;
  readonly localPort: number;
  readonly remotePort: number;
}

/** Both sides of one connection. */
export interface NatSides {
  readonly program: NatSide;
  readonly daemon: NatSide;
}

export interface NatBinding {
  /** The connection's. */
  readonly id: number;
  readonly side: "program" | "daemon";
  /** Where packets of this side come back in. */
  readonly other: NatSide;
}

export class TcpNat {
  /** Key: node, then network and both ports of a side. Bound: two for each connection; removed with it. */
  readonly #bindings = new Map<NodeId, Map<number, NatBinding>>();

  has(node: NodeId): boolean {
    return this.#bindings.has(node);
  }

  get isEmpty(): boolean {
    return this.#bindings.size === 0;
  }

  /** False when one of the sides is taken. */
  add(node: NodeId, id: number, { program, daemon }: NatSides): boolean {
    const [programKey, daemonKey] = [keyOf(program), keyOf(daemon)];
    const known = this.#bindings.get(node);
    if (programKey === daemonKey || known?.has(programKey) || known?.has(daemonKey)) return false;
    const bindings = known ?? new Map<number, NatBinding>();
    bindings.set(programKey, { id, side: "program", other: daemon });
    bindings.set(daemonKey, { id, side: "daemon", other: program });
    this.#bindings.set(node, bindings);
    return true;
  }

  remove(node: NodeId, { program, daemon }: NatSides): void {
    const bindings = this.#bindings.get(node);
    if (bindings === undefined) return;
    bindings.delete(keyOf(program));
    bindings.delete(keyOf(daemon));
    if (bindings.size === 0) this.#bindings.delete(node);
  }

  find(node: NodeId, network: NetworkId, localPort: number, remotePort: number): NatBinding | undefined {
    return this.#bindings.get(node)?.get(keyFrom(network, localPort, remotePort));
  }

  /** A remote port that is free beside `localPort`: `wanted`, or the next after it. */
  freeRemotePort(node: NodeId, network: NetworkId, localPort: number, wanted: number): number | undefined {
    const bindings = this.#bindings.get(node);
    if (!bindings?.has(keyFrom(network, localPort, wanted))) return wanted;
    const first = Math.max(wanted, FIRST_PORT) - FIRST_PORT;
    for (let tries = 1; tries < PORTS - FIRST_PORT; tries++) {
      const port = FIRST_PORT + ((first + tries) % (PORTS - FIRST_PORT));
      if (!bindings?.has(keyFrom(network, localPort, port))) return port;
    }
    return undefined;
  }
}

/** Rewrites a whole TCP packet (or superpacket) of one side into one that arrives on the other, in place. */
export function turnAround(packet: Uint8Array, to: NatSide, checksumIsPartial: boolean): void {
  const tcp = IPV6_HEADER_BYTES;
  const oldSource = readU16(packet, tcp + TCP.SOURCE_PORT);
  const oldDestination = readU16(packet, tcp + TCP.DESTINATION_PORT);
  const source = packet.slice(IPV6.SOURCE, IPV6.SOURCE + 16);
  packet.copyWithin(IPV6.SOURCE, IPV6.DESTINATION, IPV6.DESTINATION + 16);
  packet.set(source, IPV6.DESTINATION);
  if (networkAt(packet, IPV6.SOURCE) !== to.network) moveTo(to.network, packet, checksumIsPartial);
  writeU16(packet, tcp + TCP.SOURCE_PORT, to.remotePort);
  writeU16(packet, tcp + TCP.DESTINATION_PORT, to.localPort);
  if (checksumIsPartial) return;
  const checksum = updateChecksum(readU16(packet, tcp + TCP.CHECKSUM), oldSource, to.remotePort);
  writeU16(packet, tcp + TCP.CHECKSUM, updateChecksum(checksum, oldDestination, to.localPort));
}

/** Both addresses of a packet, which are in one network, are in another from now on. */
function moveTo(network: NetworkId, packet: Uint8Array, checksumIsPartial: boolean): void {
  const before = networkAt(packet, IPV6.SOURCE);
  writeNetwork(packet, IPV6.SOURCE, network);
  writeNetwork(packet, IPV6.DESTINATION, network);
  const at = IPV6_HEADER_BYTES + TCP.CHECKSUM;
  const complement = checksumIsPartial ? 0xffff : 0; // a partial one holds the sum itself
  const checksum = updateChecksum(readU16(packet, at) ^ complement, before, network);
  writeU16(packet, at, updateChecksum(checksum, before, network) ^ complement);
}

function keyOf({ network, localPort, remotePort }: NatSide): number {
  return keyFrom(network, localPort, remotePort);
}

/** 48 bits, which a number holds exactly. */
function keyFrom(network: NetworkId, localPort: number, remotePort: number): number {
  return (network * PORTS + localPort) * PORTS + remotePort;
}

const PORTS = 65_536;
/** Ports below are for services; nobody takes one for a client's. */
const FIRST_PORT = 1_024;
