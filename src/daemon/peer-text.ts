/** What a person may type for a peer, except a name: node number, Pilot address, overlay IPv6 address. */
import { type OverlayPrefix, parseOverlayAddress, parsePilotAddress } from "../wire/address.ts";
import { type NetworkId, type NodeId, networkId, nodeId } from "../wire/ids.ts";

export interface WrittenNode {
  readonly node: NodeId;
  /** Of the address that was written; 0 for a number. */
  readonly network: NetworkId;
  readonly form: "number" | "pilot" | "overlay";
}

/** Undefined when the text is none of them: then it is a name. */
export function nodeInText(text: string, prefix: OverlayPrefix): WrittenNode | undefined {
  if (/^[0-9]{1,10}$/.test(text)) {
    const number = Number(text);
    return number >= 1 && number < 0xffffffff
      ? { node: nodeId(number), network: networkId(0), form: "number" }
      : undefined;
  }
  if (!text.includes(":")) return undefined;
  const pilot = parsePilotAddress(text);
  if (pilot.kind === "address") return { ...pilot.address, form: "pilot" };
  const overlay = parseOverlayAddress(prefix, text);
  return overlay && { node: overlay.node, network: overlay.network, form: "overlay" };
}
