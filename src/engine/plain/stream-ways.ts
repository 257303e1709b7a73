/**
 * The ways that rules name for connections with plain agents: what the program's packets may do, their stream may do.
 * Nearly always empty, so that it costs the other streams one look at a size.
 */
import type { Way } from "../../policy/rule.ts";
import type { Stream } from "../../stream/stream.ts";
import type { NodeId } from "../../wire/ids.ts";

export class StreamWays {
  /** Key: node and both ports of the stream. Bound: the connections; removed with them. */
  readonly #ways = new Map<string, Way>();

  set(stream: Stream, way: Way | undefined): void {
    if (way !== undefined) this.#ways.set(keyOf(stream.remote.node, stream.localPort, stream.remotePort), way);
    else if (this.#ways.size > 0) this.#ways.delete(keyOf(stream.remote.node, stream.localPort, stream.remotePort));
  }

  of(node: NodeId, localPort: number, remotePort: number): Way | undefined {
    return this.#ways.size === 0 ? undefined : this.#ways.get(keyOf(node, localPort, remotePort));
  }
}

function keyOf(node: NodeId, localPort: number, remotePort: number): string {
  return `${node} ${localPort} ${remotePort}`;
}
