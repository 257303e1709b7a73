/**
 * From which port an agent's datagram is shown to programs. Daemons of the reference send every datagram from the next of the
 * ephemeral ports, whatever port their program listens on, so that no answer would ever find the socket that is connected to
 * that port, nor the rule that lets it in. Where a program here began, an answer from such a port is therefore shown as one from
 * the port that was asked last. Where the agent began, and from all other ports, nothing changes.
 */
import { BoundedMap } from "../../base/bounded-map.ts";
import { after, type Instant } from "../../base/instant.ts";
import type { NetworkId, NodeId } from "../../wire/ids.ts";
import { FIRST_EPHEMERAL_PORT } from "../../wire/virtual-packet.ts";

/** A conversation of one local port with one agent. */
interface Conversation {
  /** The port that was asked last; undefined when the agent began. */
  readonly asked: number | undefined;
  readonly until: Instant;
}

export class AnswerPorts {
  /** Key: network, node and local port. Bound: MAX_CONVERSATIONS; the one that was silent for longest goes. */
  readonly #conversations = new BoundedMap<string, Conversation>(MAX_CONVERSATIONS);

  noteSent(network: NetworkId, node: NodeId, localPort: number, remotePort: number, now: Instant): void {
    const key = keyOf(network, node, localPort);
    const known = this.#alive(key, now);
    const asked = known !== undefined && known.asked === undefined ? undefined : remotePort;
    this.#conversations.set(key, { asked, until: after(now, LIFETIME_MS) });
  }

  /** The port to show for a datagram that came from `remotePort`. */
  shown(network: NetworkId, node: NodeId, localPort: number, remotePort: number, now: Instant): number {
    const key = keyOf(network, node, localPort);
    const asked = this.#alive(key, now)?.asked;
    this.#conversations.set(key, { asked, until: after(now, LIFETIME_MS) });
    return remotePort < FIRST_EPHEMERAL_PORT ? remotePort : (asked ?? remotePort);
  }

  #alive(key: string, now: Instant): Conversation | undefined {
    const known = this.#conversations.get(key);
    return known !== undefined && known.until > now ? known : undefined;
  }
}

function keyOf(network: NetworkId, node: NodeId, localPort: number): string {
  return `${network} ${node} ${localPort}`;
}

const MAX_CONVERSATIONS = 4_096;
/** As a NAT has it (RFC 4787 §4.3). */
const LIFETIME_MS = 120_000;
