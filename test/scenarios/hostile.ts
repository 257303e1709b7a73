/**
 * A modified pilot-tun. It has the keys that its peers gave it and goes on using them: deaf to every word that ends trust, it
 * acknowledges no revocation, so that the other side keeps telling and keeps the session for that; it asks neither its own
 * trust nor its policy what it may send, and writes what sender it likes into its packets. Whatever of that gets through only the
 * receiving side could have stopped.
 */
import type { Link } from "../../src/tunnel/link.ts";
import { bridgeHeader, parseBridgeMessage } from "../../src/wire/bridge.ts";
import { VIRTUAL_HEADER_BYTES, virtualPacketCrc } from "../../src/wire/virtual-packet.ts";
import type { SimNode } from "../helpers/sim-network.ts";

/** To be called after each start. */
export function deafen({ engine: { introductions }, book }: SimNode): void {
  const hear = introductions.heardConsent.bind(introductions);
  introductions.heardConsent = (node, said, now) => said.consents && hear(node, said, now);
  introductions.heardTakenBack = () => {};
  introductions.heardRevoke = () => {};
  introductions.heardReject = () => {};
  introductions.endLease = (node) => {
    const record = book.get(node);
    if (record !== undefined) book.put({ ...record, lease: undefined, peerLease: undefined });
  };
}

/** What it sends under the keys of this link says nothing of revocations heard. To be called before each arrival. */
export function gag(link: Link): void {
  if (Object.hasOwn(link, "sendVirtual")) return;
  const send = link.sendVirtual.bind(link);
  link.sendVirtual = (packet, ...rest) => {
    const message = packet instanceof Uint8Array && parseBridgeMessage(packet.subarray(VIRTUAL_HEADER_BYTES));
    return (message && message.kind === "revoked-ack") || send(packet, ...rest);
  };
}

/** Seals a packet for the peer past everything that could object; false without keys. */
export function smuggle(node: SimNode, link: Link, packet: Uint8Array): boolean {
  const virtual = new Uint8Array(VIRTUAL_HEADER_BYTES + packet.length);
  virtual.set(bridgeHeader(node.node, link.node));
  virtual.set(packet, VIRTUAL_HEADER_BYTES);
  const view = new DataView(virtual.buffer);
  view.setUint16(PAYLOAD_LENGTH, packet.length);
  view.setUint32(CRC, virtualPacketCrc(virtual));
  const isSent = link.sendVirtual(virtual);
  node.drain();
  return isSent;
}

/** Of the virtual header, see wire/virtual-packet.ts. */
const PAYLOAD_LENGTH = 2;
const CRC = 30;
