/** How single frames of one link leave, beside the batches of the packet path: straight to an endpoint or through the relay. */
import { concatBytes } from "../base/bytes.ts";
import type { Endpoint } from "../base/endpoint.ts";
import { encodeRelayPrefix } from "../wire/beacon.ts";
import type { NodeId } from "../wire/ids.ts";
import type { LinkContext } from "./link-context.ts";
import { UNBROKEN_BYTES } from "./link-timing.ts";
import type { Session } from "./session.ts";

export class LinkSender {
  readonly #context: LinkContext;
  readonly #peer: NodeId;

  constructor(context: LinkContext, peer: NodeId) {
    this.#context = context;
    this.#peer = peer;
  }

  /** `mayBreak`: the underlay may carry it in pieces. */
  send(frame: Uint8Array, to: Endpoint, relayed: boolean, mayBreak = false): void {
    const prefix = relayed ? encodeRelayPrefix(this.#context.local.node, this.#peer) : undefined;
    const datagram = prefix === undefined ? frame : concatBytes(prefix, frame);
    // What fits every path stays whole, at no cost.
    this.#context.transmit(to, datagram, mayBreak && datagram.length > UNBROKEN_BYTES);
  }

  /** Seals and sends. Without a beacon a relayed link still has its last direct endpoint to try. */
  sendSealed(
    keySlot: number,
    packet: Uint8Array,
    direct: Endpoint | undefined,
    relayed: boolean,
    mayBreak = false,
  ): void {
    const relay = relayed ? this.#context.relay() : undefined;
    const to = relay ?? direct;
    if (to === undefined) return;
    this.send(this.#context.dataPlane.seal(keySlot, packet), to, relay !== undefined, mayBreak);
  }

  /**
   * The same to see whether the peer holds the session's key. No node says which key generation it speaks: where the older one
   * is allowed, both are tried until a frame opens.
   */
  sendProof(session: Session | undefined, packet: Uint8Array, direct: Endpoint | undefined, relayed: boolean): void {
    if (session === undefined) return;
    const { sendSlot, legacySlot, lastOpenedAt } = session;
    this.sendSealed(sendSlot, packet, direct, relayed);
    if (legacySlot !== undefined && lastOpenedAt === undefined) this.sendSealed(legacySlot, packet, direct, relayed);
  }
}
