/** What a person may type for a peer, except a name: node number, Pilot address, overlay IPv6 address. */
import { type OverlayPrefix, parseOverlayAddress, parsePilotAddress } from "../wire/address.ts";
import { type NodeId, nodeId } from "../wire/ids.ts";

export interface WrittenNode {
  readonly node: NodeId;
  readonly form: "number" | "pilot" | "overlay";
}

/** Undefined when the text is none of them: then it is a name. */
export function nodeInText(text: string, prefix: OverlayPrefix): WrittenNode | undefined {
  if (/^[0-9]{1,10}$/.test(text)) {
    const number = Number(text);
    return number >= 1 && number < 0xffffffff ? { node: nodeId(number), form: "number" } : undefined;
  }
  if (!text.includes(":")) return undefined;
  const pilot = parsePilotAddress(text);
  if (pilot.kind === "address") return { node: pilot.address.node, form: "pilot" };
  const overlay = parseOverlayAddress(prefix, text);
  return overlay && { node: overlay.node, form: "overlay" };
}
