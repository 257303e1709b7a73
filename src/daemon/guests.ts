/**
 * Programs that `pilot-tun run` started: who they are, which ports are theirs, and the connections that carry their packets.
 * A guest's packets join those of the interface, and what the interface would get for a guest goes to it instead; the engine
 * knows nothing of them. What a guest may not send ends here.
 */
import type { Socket } from "node:net";
import type { DropReason } from "../base/drop-reason.ts";
import { PilotError } from "../base/pilot-error.ts";
import { type Caller, currentCaller } from "../control/caller.ts";
import {
  type CarryRequest,
  RUN_PATIENCE_MS,
  type RunBackend,
  type RunReply,
  type RunRequest,
} from "../control/run-api.ts";
import { reservePorts } from "../io/native.ts";
import type { NativeDataPlane } from "../io/native-data-plane.ts";
import type { SocketOwner } from "../policy/socket-owner.ts";
import { GuestPorts, MAX_GUESTS } from "../routing/guest-ports.ts";
import { ACCEPT, DROP, IN, LOOPBACK, OUT, ROW_KIND, ROW_WORDS } from "../tunnel/data-plane.ts";
import { segmentPacket } from "../tunnel/segment.ts";
import { encodeUnreachable, mayAnswerWithError, UNREACHABLE } from "../wire/icmpv6.ts";
import { NEXT_HEADER } from "../wire/ipv6.ts";
import { encodeUdpPacket, parseUdpPacket } from "../wire/udp.ts";
import { type OffloadedPacket, VNET_HEADER_BYTES } from "../wire/vnet-header.ts";
import { GuestLink } from "./guest-link.ts";

export interface GuestsParts {
  readonly interfaceName: string;
  /** Of this node in network 0, 16 bytes. */
  readonly ownAddress: Uint8Array;
  readonly plane: NativeDataPlane;
  /** For the reply; `dns` null while names are not answered. */
  facts(): Omit<RunReply, "ports">;
  /** Undefined: nothing is to be said. */
  answerName(message: Uint8Array): Uint8Array | undefined;
  countDrop(reason: DropReason): void;
  /** Packets with nothing left to be asked about them, on their way out. */
  forward(packets: readonly OffloadedPacket[]): void;
}

interface Guest {
  readonly number: number;
  readonly first: number;
  readonly owner: SocketOwner;
  readonly freePorts: () => void;
  /** Undefined until it connects. */
  link: GuestLink | undefined;
  patience: NodeJS.Timeout | undefined;
}

export class Guests implements RunBackend {
  readonly #parts: GuestsParts;
  readonly #ports: GuestPorts;
  /** Key: number, from 1. Bound: MAX_GUESTS; ends with its connection. */
  readonly #guests = new Map<number, Guest>();
  /** Those that were told to wait because the socket to the network was full. */

  constructor(parts: GuestsParts) {
    this.#parts = parts;
    this.#ports = new GuestPorts(parts.ownAddress);
  }

  close(): void {
    for (const guest of [...this.#guests.values()]) this.#end(guest);
  }

  // ---- coming and going

  async prepare(request: RunRequest, _signal: AbortSignal): Promise<RunReply> {
    const guest = this.#admit(undefined, this.#ownerFor(request.uid, currentCaller()));
    guest.patience = setTimeout(() => this.#end(guest), RUN_PATIENCE_MS).unref();
    return { ...this.#parts.facts(), ports: { first: guest.first, last: guest.first + PORTS_EACH - 1 } };
  }

  /** Carries a guest's packets over `socket` until it ends. Throws a PilotError when that cannot be. */
  carry({ first, uid }: CarryRequest, socket: Socket, caller: Caller | undefined): void {
    const owner = this.#ownerFor(uid, caller);
    let guest = [...this.#guests.values()].find((known) => known.first === first);
    if (guest !== undefined && (guest.link !== undefined || guest.owner.uid !== owner.uid)) throw portsTaken();
    // The daemon it was prepared with is gone.
    guest ??= this.#admit(first, owner);
    clearTimeout(guest.patience);
    const entered = guest;
    entered.link = new GuestLink(socket, {
      received: (packets) => this.#receive(entered, packets),
      malformed: () => this.#parts.countDrop("malformed-packet"),
      ended: () => this.#end(entered),
    });
  }

  #admit(first: number | undefined, owner: SocketOwner): Guest {
    let number = 1;
    while (this.#guests.has(number)) number++;
    if (number > MAX_GUESTS) {
      throw new PilotError("busy", `${MAX_GUESTS} programs run already`, "End one of them first.");
    }
    const taken = this.#takePorts(first);
    if (taken === undefined) throw portsTaken();
    const guest: Guest = { number, ...taken, owner, link: undefined, patience: undefined };
    this.#guests.set(number, guest);
    this.#ports.assign(number, { first: guest.first, count: PORTS_EACH });
    return guest;
  }

  /** From the top down: most hosts give out lower ones by themselves. */
  #takePorts(wanted: number | undefined): { first: number; freePorts: () => void } | undefined {
    const starts = wanted === undefined ? PORT_STARTS : PORT_STARTS.filter((start) => start === wanted);
    for (const first of starts) {
      if ([...this.#guests.values()].some((guest) => guest.first === first)) continue;
      const freePorts = reservePorts(this.#parts.interfaceName, first, PORTS_EACH);
      if (freePorts !== undefined) return { first, freePorts };
    }
    return undefined;
  }

  #end(guest: Guest): void {
    if (this.#guests.get(guest.number) !== guest) return;
    this.#guests.delete(guest.number);
    clearTimeout(guest.patience);
    this.#ports.release(guest.number);
    guest.freePorts();
    guest.link?.close();
  }

  /** Only root speaks for others. */
  #ownerFor(uid: number | undefined, caller: Caller | undefined): SocketOwner {
    const own = caller?.uid ?? NOBODY;
    if (uid !== undefined && uid !== own && own !== 0) {
      throw new PilotError("not_permitted", `User ${own} may not run programs as user ${uid}`, "Run it as root.");
    }
    if (caller === undefined || (uid ?? own) !== own) return { uid: uid ?? own, cgroup: undefined, programs: [] };
    const program = { pid: caller.pid, name: caller.program ?? "", groups: caller.gids, cgroup: undefined };
    return { uid: own, cgroup: undefined, programs: [program] };
  }

  // ---- packets of theirs

  #receive(guest: Guest, packets: readonly OffloadedPacket[]): void {
    const leaving = packets.filter((packet) => this.#mayLeave(guest, packet));
    if (leaving.length > 0) this.#parts.forward(leaving);
  }

  #mayLeave(guest: Guest, packet: OffloadedPacket): boolean {
    const verdict = this.#ports.judge(guest.number, packet.bytes);
    if (verdict === "forward") return true;
    if (verdict === "names") this.#answerName(guest, packet);
    else this.#refuse(guest, packet.bytes, verdict);
    return false;
  }

  #refuse(guest: Guest, packet: Uint8Array, reason: DropReason): void {
    this.#parts.countDrop(reason);
    if (SILENT.has(reason) || !mayAnswerWithError(packet)) return;
    const code = reason === "no-route" ? UNREACHABLE.NO_ROUTE : UNREACHABLE.PROHIBITED;
    guest.link?.send(encodeUnreachable({ source: this.#parts.ownAddress, offending: packet, code }));
  }

  #answerName(guest: Guest, packet: OffloadedPacket): void {
    const [whole = packet.bytes] = segmentPacket(packet) ?? [];
    const question = parseUdpPacket(whole);
    if (question === undefined) return this.#parts.countDrop("malformed-packet");
    const payload = this.#parts.answerName(question.payload);
    if (payload === undefined) return this.#refuse(guest, whole, "guest");
    // "Ask elsewhere" makes programs wait; for them there is no elsewhere, so what is not here does not exist.
    if ((payload[DNS_CODE]! & 0x0f) === DNS_REFUSED) payload[DNS_CODE]! += DNS_NAME_ERROR - DNS_REFUSED;
    const { sourcePort: destinationPort, destinationPort: sourcePort } = question;
    const ends = { source: whole.subarray(24, 40), destination: whole.subarray(8, 24) };
    guest.link?.send(encodeUdpPacket({ ...ends, sourcePort, destinationPort, payload }));
  }

  // ---- packets for them

  /** Whose the local end of a flow is; undefined: none of theirs. */
  ownerOf(protocol: number, port: number): SocketOwner | undefined {
    return this.#guests.get(this.#ports.ownerOf(protocol, port))?.owner;
  }

  /** Takes out of the first `count` inbound rows what the interface must not get. */
  takeInbound(count: number): void {
    if (this.#guests.size === 0) return;
    const { rows, arena } = this.#parts.plane.inbound;
    for (let row = 0, at = 0; row < count; row++, at += ROW_WORDS) {
      if (rows[at + IN.VERDICT] !== ACCEPT || rows[at + IN.KIND] !== ROW_KIND.PACKET) continue;
      const guest = this.#guestFor(arena, rows[at + IN.OFFSET]!, rows[at + IN.LENGTH]!);
      if (guest === undefined) continue;
      const isShared = isIcmp(arena, rows[at + IN.OFFSET]!);
      guest.link?.sendFrame(this.#parts.plane.takeRun(row));
      if (!isShared) rows[at + IN.VERDICT] = DROP;
    }
  }

  /** The same for those of the first `count` outbound rows that turn around. */
  takeTurned(count: number): void {
    if (this.#guests.size === 0) return;
    const { rows, arena } = this.#parts.plane.outbound;
    for (let row = 0, at = 0; row < count; row++, at += ROW_WORDS) {
      if (rows[at + OUT.KEY_SLOT] !== LOOPBACK) continue;
      const [offset, length] = [rows[at + OUT.OFFSET]!, rows[at + OUT.LENGTH]!];
      const guest = this.#guestFor(arena, offset, length);
      if (guest === undefined) continue;
      guest.link?.sendFrame(arena.subarray(offset - VNET_HEADER_BYTES, offset + length));
      rows[at + OUT.KEY_SLOT] = DROP;
    }
  }

  /** True when the packet, which the engine has for the interface, was a guest's alone. */
  take(packet: Uint8Array): boolean {
    if (this.#guests.size === 0) return false;
    const guest = this.#guestFor(packet, 0, packet.length);
    guest?.link?.send(packet);
    return guest !== undefined && !isIcmp(packet, 0);
  }

  #guestFor(bytes: Uint8Array, offset: number, length: number): Guest | undefined {
    return this.#guests.get(this.#ports.ownerOfIncoming(bytes, offset, length));
  }
}

/** An identifier of an echo may be that of a host's program as well: both get what is for either. */
function isIcmp(bytes: Uint8Array, offset: number): boolean {
  return bytes[offset + 6] === NEXT_HEADER.ICMPV6;
}

function portsTaken(): PilotError {
  return new PilotError(
    "ports_taken",
    "No ports are left for another program, or its ports were taken while the daemon was away",
    "End a program that listens on a port above 49152, or start this one again.",
  );
}

/** What the kernel sends by itself in any namespace is no attempt of a program. */
const SILENT: ReadonlySet<DropReason> = new Set(["multicast", "not-ipv6", "spoofed-source"]);
const PORTS_EACH = 512;
/** Each range begins with an even port and ends with an odd one, as the kernel likes it. */
const PORT_STARTS = Array.from({ length: 2 * MAX_GUESTS }, (_, index) => 65_536 - (index + 1) * PORTS_EACH);
const NOBODY = 65_534;
/** Byte of a DNS message whose lower half is the response code (RFC 1035 §4.1.1). */
const DNS_CODE = 3;
const DNS_REFUSED = 5;
const DNS_NAME_ERROR = 3;
