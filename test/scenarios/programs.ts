/**
 * The programs on all nodes: what each of their packets was when it was sent, and whether what arrives at one of them is a packet
 * that may arrive there, once.
 */
import { udpPacket } from "../helpers/inner-packets.ts";
import type { Reference } from "./reference.ts";
import { seconds, Violated } from "./violated.ts";

/** Behind the head of every packet that programs send; must never be seen on the underlay. */
export const MARKER = Buffer.from("the-plain-words-of-a-program");
const FLOW_LABEL = 0x5eed5;
/** Longer than any frame that carries no packet of a program. */
export const PAYLOAD_BYTES = 400;

export interface SentPacket {
  readonly from: number;
  readonly to: number;
  readonly atMs: number;
  /** Between the addresses of both in the network that they may join. */
  readonly inNetwork: boolean;
  /** Sent past everything that could object. */
  readonly isSmuggled: boolean;
  /** Another node, as which the sender tries to pass. */
  readonly as: number | undefined;
  /** Why the sending side should not have let it out; undefined: it may. */
  readonly barred: string | undefined;
  /** As it was sent; and translated, as towards a plain agent: a node that does not yet know what its peer is does both. */
  delivered: boolean;
  translated: boolean;
}

export interface ProgramsParts {
  readonly reference: Reference;
  readonly nowMs: () => number;
  /** By index. */
  readonly numberOf: (index: number) => number;
  readonly isHostile: (index: number) => boolean;
  /** The longest that anything is under way now. */
  readonly flightMs: () => number;
  /** What arrives now was sent again by a stranger. */
  readonly isReplay: () => boolean;
}

export class Programs {
  /** By the number in the packet. Bound: the life. */
  readonly packets: SentPacket[] = [];
  delivered = 0;
  readonly #parts: ProgramsParts;

  constructor(parts: ProgramsParts) {
    this.#parts = parts;
  }

  /** The next packet, and its number. */
  make(what: Pick<SentPacket, "from" | "to" | "inNetwork" | "isSmuggled" | "as">): { id: number; bytes: Uint8Array } {
    const { reference, nowMs, numberOf } = this.#parts;
    const { from, to, inNetwork, isSmuggled, as } = what;
    const barred = isSmuggled ? undefined : reference.barred(from, to, "out", inNetwork, nowMs());
    const id = this.packets.push({ ...what, atMs: nowMs(), barred, delivered: false, translated: false }) - 1;
    const payload = Buffer.alloc(PAYLOAD_BYTES, "padding ");
    MARKER.copy(payload);
    payload.writeUInt32BE(id, MARKER.length);
    const ends = { source: numberOf(as ?? from), destination: numberOf(to), flowLabel: FLOW_LABEL };
    return { id, bytes: udpPacket({ ...ends, network: inNetwork ? 1 : 0, payload: new Uint8Array(payload) }) };
  }

  /** A program on this node gets a packet. */
  receive(index: number, bytes: Uint8Array): void {
    const packet = Buffer.from(bytes);
    if (packet[6] !== 17) return this.#error(index, packet);
    const at = packet.indexOf(MARKER);
    const sent = at < 0 ? undefined : this.packets[packet.readUInt32BE(at + MARKER.length)];
    if (sent === undefined) throw new Violated("programs get what programs sent", packet.toString("hex").slice(0, 200));
    const { from, to } = sent;
    const what = `packet of n${from} to n${to}, sent at ${seconds(sent.atMs)}`;
    if (to !== index || sent.as !== undefined || packet.readUInt32BE(20) !== this.#parts.numberOf(from)) {
      throw new Violated(
        "packets arrive at their destination, under the name of their source",
        `${what}, at n${index} from ${packet.readUInt32BE(20)}`,
      );
    }
    // Translation makes a header of its own.
    const form = (packet.readUInt32BE(0) & 0xfffff) === FLOW_LABEL ? "delivered" : "translated";
    if (sent[form]) throw new Violated("nothing is delivered twice", what);
    this.#judge(sent, what, bytes.length);
    sent[form] = true;
    this.delivered++;
  }

  #judge(sent: SentPacket, what: string, length: number): void {
    const { reference, nowMs, isHostile, isReplay, flightMs } = this.#parts;
    const { from, to, inNetwork, atMs } = sent;
    if (sent.barred !== undefined) throw new Violated(sent.barred, what);
    if (isHostile(to)) return;
    const barred = reference.barred(to, from, "in", inNetwork, nowMs());
    if (barred !== undefined) throw new Violated(barred, what);
    const revokedAt = reference.revokedAt(from, to);
    if (revokedAt !== undefined && revokedAt > atMs && !isReplay() && nowMs() > revokedAt + flightMs()) {
      throw new Violated("no packet after the sender's revocation", `${what}, revoked at ${seconds(revokedAt)}`);
    }
    if (!reference.pass(from, to, length, atMs)) throw new Violated("no more bytes than were granted", what);
  }

  #error(index: number, packet: Buffer): void {
    const source = packet.readUInt32BE(20);
    if (source === this.#parts.numberOf(index)) return;
    throw new Violated("errors are this host's own", `n${index} got one from ${source}`);
  }
}
