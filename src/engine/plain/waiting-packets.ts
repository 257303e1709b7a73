/**
 * Packets for peers of which it is not known yet whether they are plain agents, or to which there is no session yet. They
 * are copies: towards an unknown peer each packet has also gone out whole, so that another pilot-tun loses no time, and a
 * plain agent, which ignored it, gets it translated once its silence says what it is. Of a connection only the first SYN is
 * kept, its repeats are the same.
 */
import { after, type Deadline, type Instant } from "../../base/instant.ts";
import type { StagedPacket } from "../../tunnel/data-plane.ts";
import type { NodeId } from "../../wire/ids.ts";
import { IPV6, IPV6_HEADER_BYTES, NEXT_HEADER } from "../../wire/ipv6.ts";
import { TCP, TCP_FLAG } from "../../wire/tcp.ts";

export class WaitingPackets {
  /** Key: node. Bound: MAX_NODES with MAX_EACH packets; an entry goes when released or overdue. Oldest first. */
  readonly #waiting = new Map<NodeId, { packets: StagedPacket[]; until: Instant }>();

  /** False when there is no room. The bytes are copied. */
  hold(node: NodeId, packet: StagedPacket, now: Instant): boolean {
    let entry = this.#waiting.get(node);
    if (entry === undefined) {
      if (this.#waiting.size >= MAX_NODES) return false;
      entry = { packets: [], until: after(now, PATIENCE_MS) };
      this.#waiting.set(node, entry);
    }
    if (entry.packets.some((held) => isRepeatedSyn(held.bytes, packet.bytes))) return true;
    if (entry.packets.length >= MAX_EACH || packet.bytes.length > MAX_PACKET_BYTES) return false;
    entry.packets.push({ ...packet, bytes: packet.bytes.slice() });
    return true;
  }

  /** Takes out what waits for a node. */
  release(node: NodeId): readonly StagedPacket[] {
    const packets = this.#waiting.get(node)?.packets ?? [];
    this.#waiting.delete(node);
    return packets;
  }

  pollTimeout(): Deadline | undefined {
    for (const { until } of this.#waiting.values()) return { at: until, reason: "plain-waiting" };
    return undefined;
  }

  /** The nodes whose packets have waited long enough; `release` is the caller's. */
  overdue(now: Instant): NodeId[] {
    const nodes: NodeId[] = [];
    for (const [node, { until }] of this.#waiting) {
      if (until > now) break;
      nodes.push(node);
    }
    return nodes;
  }
}

function isRepeatedSyn(a: Uint8Array, b: Uint8Array): boolean {
  if (!isSyn(a) || !isSyn(b)) return false;
  for (let i = 0; i < 4; i++) if (a[IPV6_HEADER_BYTES + i] !== b[IPV6_HEADER_BYTES + i]) return false;
  return true;
}

function isSyn(packet: Uint8Array): boolean {
  if (packet[IPV6.NEXT_HEADER] !== NEXT_HEADER.TCP) return false;
  return (packet[IPV6_HEADER_BYTES + TCP.FLAGS]! & TCP_FLAG.SYN) !== 0;
}

/** Longer than all hellos together, and than a session takes to be agreed on. */
const PATIENCE_MS = 4_000;
const MAX_NODES = 256;
const MAX_EACH = 64;
const MAX_PACKET_BYTES = 9_000;
