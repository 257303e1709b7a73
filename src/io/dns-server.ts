/**
 * DNS over UDP and TCP at one address of this host, for programs of this host: messages in, a zone's answers out. Says
 * nothing to who has no address here, to answers, and to what is too short to be a question.
 * Source: RFC 1035 §4, 6891 (EDNS), 7766 (TCP), 9619 (one question).
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, isIPv6, type Server, type Socket } from "node:net";
import dnsPacket, { type Answer, type DecodedPacket, type Packet } from "dns-packet";
import type { RecordData, ResponseCode, ZoneAnswer } from "../names/zone.ts";

export interface DnsServerOptions {
  /** IPv6 address, which the host must have. */
  readonly address: string;
  /** 53, or 0 for any. */
  readonly port: number;
  answer(name: string, type: string): ZoneAnswer;
  /** Whether this is an address of this host. */
  isLocal(address: string): boolean;
}

export interface DnsCounters {
  queries: number;
  refused: number;
  malformed: number;
}

export class DnsServer {
  readonly counters: DnsCounters = { queries: 0, refused: 0, malformed: 0 };
  readonly #options: DnsServerOptions;
  readonly #udp: UdpSocket = createSocket({ type: "udp6", ipv6Only: true });
  readonly #tcp: Server;
  /** Bound: MAX_CONNECTIONS. */
  readonly #connections = new Set<Socket>();

  constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#udp.on("message", (message, from) => this.#handleDatagram(message, from));
    this.#udp.on("error", () => {}); // one answer that could not be sent
    this.#tcp = createServer((socket) => this.#converse(socket));
    this.#tcp.maxConnections = MAX_CONNECTIONS;
  }

  /** Returns the port. Rejects with the system's error when the address or the port cannot be had. */
  async listen(): Promise<number> {
    const { address } = this.#options;
    this.#udp.bind(this.#options.port, address);
    await once(this.#udp, "listening");
    const { port } = this.#udp.address();
    this.#tcp.listen(port, address);
    await once(this.#tcp, "listening");
    return port;
  }

  close(): void {
    for (const socket of this.#connections) socket.destroy();
    for (const part of [this.#udp, this.#tcp]) {
      try {
        part.close();
      } catch {
        // It was never opened.
      }
    }
  }

  #handleDatagram(message: Buffer, from: RemoteInfo): void {
    if (!this.#options.isLocal(from.address.replace(/%.*$/, ""))) return void this.counters.refused++;
    const reply = this.#respond(message, "udp");
    if (reply !== undefined) this.#udp.send(reply, from.port, from.address);
  }

  #converse(socket: Socket): void {
    const remote = socket.remoteAddress ?? "";
    if (!isIPv6(remote) || !this.#options.isLocal(remote)) {
      this.counters.refused++;
      socket.destroy();
      return;
    }
    this.#connections.add(socket);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#connections.delete(socket));
    let waiting: Buffer = Buffer.alloc(0);
    socket.on("data", (bytes: Buffer) => {
      waiting = waiting.length === 0 ? bytes : Buffer.concat([waiting, bytes]);
      while (waiting.length >= 2 && waiting.length >= 2 + waiting.readUInt16BE(0)) {
        const length = waiting.readUInt16BE(0);
        this.#answerOverTcp(socket, waiting.subarray(2, 2 + length));
        waiting = waiting.subarray(2 + length);
      }
    });
  }

  #answerOverTcp(socket: Socket, message: Buffer): void {
    const reply = this.#respond(message, "tcp");
    if (reply === undefined) return void socket.destroy();
    const length = Buffer.alloc(2);
    length.writeUInt16BE(reply.length);
    // A reader that does not read gets no more of our memory.
    if (!socket.write(Buffer.concat([length, reply])) && socket.writableLength > MAX_UNREAD_BYTES) socket.destroy();
  }

  /** Undefined: nothing is to be said. */
  #respond(message: Buffer, transport: "udp" | "tcp"): Buffer | undefined {
    if (message.length < HEADER_BYTES || (message[2]! & RESPONSE_BIT) !== 0) return void this.counters.malformed++;
    this.counters.queries++;
    const query = decode(message);
    if (query === undefined) {
      this.counters.malformed++;
      return encode(header(message, "FORMERR"), [], 0);
    }
    const opt = (query.additionals ?? []).find((record) => record.type === "OPT");
    const edns: Answer[] = opt === undefined ? [] : [OPT];
    const limit = transport === "tcp" ? MAX_TCP_BYTES : udpLimit(opt);
    return encode({ ...header(message, "NOERROR"), ...this.#body(message, query) }, edns, limit);
  }

  #body(message: Buffer, query: DecodedPacket): Packet {
    const question = query.questions?.[0];
    if (((message[2]! >> 3) & 15) !== 0) return header(message, "NOTIMP");
    if (question === undefined || query.questions!.length !== 1) return header(message, "FORMERR");
    const answer: ZoneAnswer =
      question.class === "IN"
        ? this.#options.answer(question.name, question.type)
        : { code: "REFUSED", answers: [], authority: [] };
    return {
      ...header(message, answer.code),
      questions: [question],
      answers: answer.answers.map(toAnswer),
      authorities: answer.authority.map(toAnswer),
    };
  }
}

/** Undefined for bytes that are no DNS message. */
function decode(message: Buffer): DecodedPacket | undefined {
  try {
    return dnsPacket.decode(message);
  } catch {
    return undefined;
  }
}

/** The codec takes the response code as the low bits of the flags. */
function header(message: Buffer, code: ResponseCode): Packet {
  const recursionDesired = message.readUInt16BE(2) & 0x0100;
  const opcode = message.readUInt16BE(2) & 0x7800;
  const authoritative = code === "NOERROR" || code === "NXDOMAIN" ? dnsPacket.AUTHORITATIVE_ANSWER : 0;
  const flags = recursionDesired | opcode | authoritative | RESPONSE_CODE[code];
  return { type: "response", id: message.readUInt16BE(0), flags };
}

const RESPONSE_CODE: Readonly<Record<ResponseCode, number>> = {
  NOERROR: 0,
  FORMERR: 1,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
};

/** More than fits is said to be cut, and asked again over TCP. */
function encode(packet: Packet, additionals: Answer[], limit: number): Buffer {
  const whole = dnsPacket.encode({ ...packet, additionals });
  if (limit === 0 || whole.length <= limit) return whole;
  const flags = (packet.flags ?? 0) | dnsPacket.TRUNCATED_RESPONSE;
  return dnsPacket.encode({ ...packet, flags, answers: [], authorities: [], additionals });
}

function udpLimit(opt: Answer | undefined): number {
  const offered = opt?.type === "OPT" ? ((opt as { udpPayloadSize?: number }).udpPayloadSize ?? 0) : 0;
  return Math.max(MIN_UDP_BYTES, Math.min(offered, MAX_UDP_BYTES));
}

function toAnswer({ name, ttlS, data }: RecordData): Answer {
  const common = { name, ttl: ttlS, class: "IN" } as const;
  switch (data.type) {
    case "AAAA":
      return { ...common, type: "AAAA", data: data.address };
    case "PTR":
    case "NS":
      return { ...common, type: data.type, data: data.target };
    case "TXT":
      return { ...common, type: "TXT", data: [...data.texts] };
    case "HINFO":
      return { ...common, type: "HINFO", data: { cpu: data.cpu, os: data.os } };
    case "SOA":
      return { ...common, type: "SOA", data: soaData(data.primary, data.mailbox, data.negativeTtlS) };
  }
}

function soaData(primary: string, mailbox: string, minimum: number) {
  return { mname: primary, rname: mailbox, serial: 1, refresh: 3600, retry: 600, expire: 86_400, minimum };
}

const HEADER_BYTES = 12;
const RESPONSE_BIT = 0x80;
/** RFC 1035 §4.2.1; what fits everywhere (RFC 9715). */
const MIN_UDP_BYTES = 512;
const MAX_UDP_BYTES = 1232;
const MAX_TCP_BYTES = 65_535;
const MAX_CONNECTIONS = 64;
const MAX_UNREAD_BYTES = 256 * 1024;
const IDLE_MS = 5_000;
const OPT: Answer = {
  type: "OPT",
  name: ".",
  udpPayloadSize: MAX_UDP_BYTES,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
};
