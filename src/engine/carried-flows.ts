/**
 * Flows over an orderly restart of the daemon. What is carried tells who began a connection and how a word to its program
 * must look to be believed; it allows nothing: each flow is judged anew, by the trust, leases and policy of the new start.
 * Flows whose verdict asks for a program's name wait for their next packet, those of plain agents end with the daemon.
 */
import { fromHex, toHex } from "../base/bytes.ts";
import type { Instant } from "../base/instant.ts";
import { emptyFlowKey } from "../policy/flow-key.ts";
import type { Flow, FlowTable } from "../policy/flow-table.ts";
import type { Routes } from "../routing/routes.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import type { LinkTable } from "../tunnel/link-table.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import type { Admission } from "./admission.ts";
import type { BridgeConversation } from "./bridge-conversation.ts";
import type { Networks } from "./networks.ts";

export interface CarriedFlow {
  /** Next-header number: TCP or UDP. */
  readonly protocol: number;
  readonly localPort: number;
  readonly remotePort: number;
  /** Last 12 bytes of the addresses, in hex. */
  readonly local: string;
  readonly remote: string;
  readonly beganRemotely: boolean;
  readonly lastAckSent?: number | undefined;
  readonly nextSeqReceived?: number | undefined;
}

export interface CarriedFlowsParts {
  readonly flows: FlowTable;
  readonly links: LinkTable;
  readonly routes: Routes;
  readonly trust: TrustBook;
  readonly networks: Pick<Networks, "admits">;
  readonly bridge: Pick<BridgeConversation, "kindOf">;
  readonly admission: Admission;
}

export class CarriedFlows {
  readonly #parts: CarriedFlowsParts;

  constructor(parts: CarriedFlowsParts) {
    this.#parts = parts;
  }

  /** The live flows that a next start can go on with: at most MOST_CARRIED, those that had a packet last. */
  take(now: Instant): CarriedFlow[] {
    const { flows } = this.#parts.admission.recent(MOST_CARRIED, now);
    return flows.filter((flow) => this.#canGoOn(flow)).map(carried);
  }

  /** Before the first packet and after the policy is in force. Returns how many are live again. */
  restore(flows: readonly CarriedFlow[], now: Instant): number {
    let restored = 0;
    for (const flow of flows) if (this.#restore(flow, now)) restored++;
    return restored;
  }

  #canGoOn(flow: Flow): boolean {
    const { admission, bridge } = this.#parts;
    if (flow.synSent !== undefined) return false; // the program sends its SYN again, which begins it anew
    const node = admission.nodeOf(flow);
    return node !== undefined && bridge.kindOf(node) !== "plain" && isCarried(flow.protocol);
  }

  #restore(flow: CarriedFlow, now: Instant): boolean {
    const { routes, trust, networks, links, admission, flows } = this.#parts;
    const bytes = new Uint8Array(2 * ADDRESS_BYTES);
    const key = emptyFlowKey(new DataView(bytes.buffer));
    [key.remoteOffset, key.localOffset] = [REMOTE, LOCAL];
    [key.protocol, key.ports] = [flow.protocol, (flow.localPort << 16) | flow.remotePort];
    for (const offset of [REMOTE, LOCAL]) key.view.setInt32(offset, routes.prefixWord);
    bytes.set(fromHex(flow.remote)!, REMOTE + TAIL_OFFSET);
    bytes.set(fromHex(flow.local)!, LOCAL + TAIL_OFFSET);
    const node = routes.ownerOf(bytes, REMOTE);
    if (node === undefined || !routes.isLocal(bytes, LOCAL) || trust.stateOf(node) !== "mutual") return false;
    const link = links.get(node);
    if (link === undefined || networks.admits(bytes, REMOTE, LOCAL, node, now) !== "yes") return false;
    const opened = admission.open(key, link, flow.beganRemotely ? "source-is-remote" : "source-is-local", now);
    if (typeof opened === "string") return false;
    if (flow.lastAckSent !== undefined) flows.noteAckSent(opened, flow.lastAckSent);
    if (flow.nextSeqReceived !== undefined) flows.noteNextSeq(opened, flow.nextSeqReceived);
    return true;
  }
}

/** Undefined for what `take` cannot have given. */
export function parseCarriedFlows(json: unknown): CarriedFlow[] | undefined {
  return Array.isArray(json) && json.length <= MOST_CARRIED && json.every(isCarriedFlow) ? json : undefined;
}

function carried(flow: Flow): CarriedFlow {
  const { protocol, localPort, remotePort, beganRemotely, lastAckSent, nextSeqReceived } = flow;
  const addresses = { local: toHex(flow.local), remote: toHex(flow.remote) };
  return { protocol, localPort, remotePort, ...addresses, beganRemotely, lastAckSent, nextSeqReceived };
}

function isCarriedFlow(json: unknown): json is CarriedFlow {
  if (typeof json !== "object" || json === null) return false;
  const flow = json as Record<string, unknown>;
  return (
    isCarried(flow["protocol"]) &&
    [flow["localPort"], flow["remotePort"]].every((port) => isWord(port, 0xffff)) &&
    [flow["local"], flow["remote"]].every(isAddressTail) &&
    typeof flow["beganRemotely"] === "boolean" &&
    [flow["lastAckSent"], flow["nextSeqReceived"]].every((word) => word === undefined || isWord(word, 0xffffffff))
  );
}

function isCarried(protocol: unknown): boolean {
  return protocol === NEXT_HEADER.TCP || protocol === NEXT_HEADER.UDP;
}

function isWord(value: unknown, most: number): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most;
}

function isAddressTail(value: unknown): boolean {
  return typeof value === "string" && fromHex(value)?.length === ADDRESS_BYTES - TAIL_OFFSET;
}

/** A file of two megabytes at most. */
const MOST_CARRIED = 8_192;
const ADDRESS_BYTES = 16;
/** What flows keep of an address begins here. */
const TAIL_OFFSET = 4;
const REMOTE = 0;
const LOCAL = ADDRESS_BYTES;
