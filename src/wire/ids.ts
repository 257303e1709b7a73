/** Numbers that are easily mixed up, branded. */

/** 32 bits; handed out by the registry from 1 upwards. */
export type NodeId = number & { readonly brand: "node" };

/** 16 bits; network 0 is the backbone that every node belongs to. */
export type NetworkId = number & { readonly brand: "network" };

/** A 48-bit Pilot address (pilot protocol §1). */
export interface PilotAddress {
  readonly network: NetworkId;
  readonly node: NodeId;
}

/** The network that every node is in. */
export const BACKBONE = networkId(0);

export function nodeId(value: number): NodeId {
  return value as NodeId;
}

export function networkId(value: number): NetworkId {
  return value as NetworkId;
}
