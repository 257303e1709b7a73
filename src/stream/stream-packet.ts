/**
 * What a stream says to its far side: the fields of a virtual packet of protocol 1 that the stream decides (pilot protocol
 * §2.1). Whoever carries the packet adds the addresses, the checksum and the frame.
 */
import { FLAG, type VirtualPacket } from "../wire/virtual-packet.ts";

/** Its payload is borrowed: never to be written to, and valid for an input only until the call returns. */
export type StreamPacket = Omit<VirtualPacket, "protocol" | "source" | "destination"> & {
  /**
   * Set for a run: the packet stands for several that follow each other, each with so many bytes of the payload and the
   * last with the rest, and alike in all but their sequence numbers. None of them looks like a SACK.
   */
  readonly segmentBytes?: number | undefined;
};

/** Numbers a packet carries besides its flags and ports. */
export interface PacketNumbers {
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly window: number;
}

/** The two ports of a stream, and the packets that go from one to the other. */
export class PacketForm {
  readonly #sourcePort: number;
  readonly #destinationPort: number;

  constructor(sourcePort: number, destinationPort: number) {
    this.#sourcePort = sourcePort;
    this.#destinationPort = destinationPort;
  }

  packet(
    flags: number,
    numbers: PacketNumbers,
    payload: Uint8Array = NO_PAYLOAD,
    segmentBytes?: number | undefined,
  ): StreamPacket {
    const { sequence, acknowledgement, window } = numbers;
    const [sourcePort, destinationPort] = [this.#sourcePort, this.#destinationPort];
    return { flags, sourcePort, destinationPort, sequence, acknowledgement, window, payload, segmentBytes };
  }

  /** Flags RST alone: the reference sends no other, and looks at no number of it. */
  reset(sequence: number): StreamPacket {
    return this.packet(FLAG.RST, { sequence, acknowledgement: 0, window: 0 });
  }
}

export const NO_PAYLOAD = new Uint8Array(0);

export function hasFlag(packet: StreamPacket, flag: number): boolean {
  return (packet.flags & flag) !== 0;
}

/** A SYN that opens, in contrast to the SYN+ACK that answers. */
export function isOpeningSyn(packet: StreamPacket): boolean {
  return (packet.flags & (FLAG.SYN | FLAG.ACK)) === FLAG.SYN;
}
