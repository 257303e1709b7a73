/**
 * A DNS message in, the message that answers it out: the codec of `dns-packet` around a zone's answers. Never throws, for
 * every program of this host may send any bytes.
 * Source: RFC 1035 §4, 6891 (EDNS), 9619 (one question).
 */
import dnsPacket, { type Answer, type DecodedPacket, type Packet } from "dns-packet";
import type { RecordData, ResponseCode, ZoneAnswer } from "../names/zone.ts";

export interface DnsCounters {
  queries: number;
  refused: number;
  malformed: number;
}

export class DnsResponder {
  readonly counters: DnsCounters = { queries: 0, refused: 0, malformed: 0 };
  readonly #answer: (name: string, type: string) => ZoneAnswer;

  constructor(answer: (name: string, type: string) => ZoneAnswer) {
    this.#answer = answer;
  }

  /** Undefined: nothing is to be said. */
  respond(message: Buffer, transport: "udp" | "tcp"): Buffer | undefined {
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
    if (!isRepeatable(question.name)) return header(message, "FORMERR");
    const answer: ZoneAnswer =
      question.class === "IN"
        ? this.#answer(question.name, question.type)
        : { code: "REFUSED", answers: [], authority: [] };
    return {
      ...header(message, answer.code),
      questions: [question],
      answers: answer.answers.map(toAnswer),
      authorities: answer.authority.map(toAnswer),
    };
  }
}

/** The codec reads names of any bytes, but only these it writes again as they were; no name here is another. */
function isRepeatable(name: string): boolean {
  return name === "." || (name.length <= MAX_NAME_LENGTH && name.split(".").every((label) => LABEL.test(label)));
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

const LABEL = /^[!-~]{1,63}$/;
const MAX_NAME_LENGTH = 253;
const HEADER_BYTES = 12;
const RESPONSE_BIT = 0x80;
/** RFC 1035 §4.2.1; what fits everywhere (RFC 9715). */
const MIN_UDP_BYTES = 512;
const MAX_UDP_BYTES = 1232;
const MAX_TCP_BYTES = 65_535;
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
