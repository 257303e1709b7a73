/** Where peers were last proved to be: what the next start tries first. */
import { type Endpoint, sameEndpoint } from "../base/endpoint.ts";
import type { Link } from "../tunnel/link.ts";
import type { NodeId } from "../wire/ids.ts";

export class KnownEndpoints {
  /** Key: node. Bound: trust records. */
  readonly #endpoints: Map<NodeId, Endpoint>;

  constructor(stored: ReadonlyMap<NodeId, Endpoint>) {
    this.#endpoints = new Map(stored);
  }

  get(node: NodeId): Endpoint | undefined {
    return this.#endpoints.get(node);
  }

  /** True when that is news worth writing down. */
  learn(link: Link): boolean {
    const endpoint = link.path.direct;
    if (link.path.isRelayed || endpoint === undefined || sameEndpoint(this.#endpoints.get(link.node), endpoint))
      return false;
    this.#endpoints.set(link.node, endpoint);
    return true;
  }

  all(): ReadonlyMap<NodeId, Endpoint> {
    return this.#endpoints;
  }
}
