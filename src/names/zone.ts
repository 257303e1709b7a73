/**
 * The zone `pilot` and the reverse zone of the overlay prefix, answered from what this host may see and nothing else. A name
 * that exists but may not be seen gets the very answer of one that does not exist, made by the same steps.
 * Source: RFC 1034, 2308 (negative answers), 6761 (a name of its own), 8482 (ANY).
 *
 *   NAME.pilot              AAAA, TXT     a trusted peer, or this node
 *   NAME.NETWORK.pilot      AAAA, TXT     a member of a network that both are in, by its address there
 *   pilot                   SOA, NS, AAAA this responder
 *   …ip6.arpa               PTR
 */

/** What may be known of a host under a name. */
export interface NamedHost {
  /** Overlay IPv6 address, canonical text. */
  readonly address: string;
  /** `0:0000.0000.0007`. */
  readonly pilot: string;
  /** `SHA256:…`; undefined while the key is not known. */
  readonly fingerprint: string | undefined;
}

/** Answers at once, from memory. */
export interface Directory {
  /** `network`: name of a network that this host is in. */
  find(host: string, network: string | undefined): NamedHost | undefined;
  /** The name below `pilot` of the host with this address, `bob` or `bob.ops`. */
  nameOf(address: Uint8Array): string | undefined;
}

export interface ZoneOptions {
  /** First six bytes of every overlay address. */
  readonly prefix: Uint8Array;
  /** Where this responder answers, canonical text. */
  readonly serviceAddress: string;
}

export type ResponseCode = "NOERROR" | "FORMERR" | "NXDOMAIN" | "NOTIMP" | "REFUSED";

export interface RecordData {
  readonly name: string;
  readonly ttlS: number;
  readonly data:
    | { readonly type: "AAAA"; readonly address: string }
    | { readonly type: "PTR"; readonly target: string }
    | { readonly type: "NS"; readonly target: string }
    | { readonly type: "TXT"; readonly texts: readonly string[] }
    | { readonly type: "HINFO"; readonly cpu: string; readonly os: string }
    | { readonly type: "SOA"; readonly primary: string; readonly mailbox: string; readonly negativeTtlS: number };
}

export interface ZoneAnswer {
  readonly code: ResponseCode;
  readonly answers: readonly RecordData[];
  readonly authority: readonly RecordData[];
}

export class Zone {
  readonly #directory: Directory;
  readonly #serviceAddress: string;
  readonly #prefix: Uint8Array;
  /** `4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa` */
  readonly reverseApex: string;

  constructor(options: ZoneOptions, directory: Directory) {
    this.#directory = directory;
    this.#serviceAddress = options.serviceAddress;
    this.#prefix = options.prefix;
    this.reverseApex = `${nibbles(options.prefix)}.ip6.arpa`;
  }

  /** `name` without the final dot, in any case; the answer repeats it as it was asked. */
  answer(name: string, type: string): ZoneAnswer {
    const asked = name.toLowerCase();
    if (asked === APEX || asked.endsWith(`.${APEX}`)) return this.#forward(name, asked, type);
    if (asked === this.reverseApex || asked.endsWith(`.${this.reverseApex}`)) return this.#reverse(name, asked, type);
    return { code: "REFUSED", answers: [], authority: [] };
  }

  #forward(name: string, asked: string, type: string): ZoneAnswer {
    if (asked === APEX) return this.#apex(name, APEX, type);
    const labels = asked.slice(0, -APEX.length - 1).split(".");
    const found = labels.length <= 2 ? this.#directory.find(labels[0]!, labels[1]) : undefined;
    if (found === undefined) return missing(APEX);
    return choose(name, APEX, type, [
      { type: "AAAA", address: found.address },
      { type: "TXT", texts: textsOf(found) },
    ]);
  }

  #reverse(name: string, asked: string, type: string): ZoneAnswer {
    if (asked === this.reverseApex) return this.#apex(name, this.reverseApex, type);
    const address = addressOf(asked.slice(0, -this.reverseApex.length - 1), this.#prefix);
    const found = address === undefined ? undefined : this.#directory.nameOf(address);
    if (found === undefined) return missing(this.reverseApex);
    return choose(name, this.reverseApex, type, [{ type: "PTR", target: `${found}.${APEX}` }]);
  }

  #apex(name: string, apex: string, type: string): ZoneAnswer {
    const records: RecordData["data"][] = [soaData(), { type: "NS", target: RESPONDER }];
    if (apex === APEX) records.push({ type: "AAAA", address: this.#serviceAddress });
    return choose(name, apex, type, records);
  }
}

/** Of all records at a name those asked for; a name without that type is no missing name. */
function choose(name: string, apex: string, type: string, records: readonly RecordData["data"][]): ZoneAnswer {
  const ttlS = TTL_S;
  if (type === "ANY") {
    const hinfo = { type: "HINFO", cpu: "RFC8482", os: "" } as const;
    return { code: "NOERROR", answers: [{ name, ttlS, data: hinfo }], authority: [] };
  }
  const answers = records.filter((data) => data.type === type).map((data) => ({ name, ttlS, data }));
  return { code: "NOERROR", answers, authority: answers.length === 0 ? [soa(apex)] : [] };
}

function missing(apex: string): ZoneAnswer {
  return { code: "NXDOMAIN", answers: [], authority: [soa(apex)] };
}

function soa(apex: string): RecordData {
  return { name: apex, ttlS: NEGATIVE_TTL_S, data: soaData() };
}

function soaData() {
  return { type: "SOA", primary: RESPONDER, mailbox: `hostmaster.${APEX}`, negativeTtlS: NEGATIVE_TTL_S } as const;
}

function textsOf({ pilot, fingerprint }: NamedHost): string[] {
  return fingerprint === undefined ? [`pilot=${pilot}`] : [`pilot=${pilot}`, `key=${fingerprint}`];
}

/** Low nibble of the last byte first (RFC 3596 §2.5). */
function nibbles(bytes: Uint8Array): string {
  return [...bytes]
    .reverse()
    .flatMap((byte) => [byte & 15, byte >> 4])
    .map((nibble) => nibble.toString(16))
    .join(".");
}

/** The 16 bytes that the labels before the zone's name spell; undefined when they do not spell a whole address. */
function addressOf(labels: string, prefix: Uint8Array): Uint8Array | undefined {
  if (!/^(?:[0-9a-f]\.){19}[0-9a-f]$/.test(labels)) return undefined;
  const address = new Uint8Array(16);
  address.set(prefix);
  const values = labels.split(".").map((digit) => Number.parseInt(digit, 16));
  for (let i = 0; i < 10; i++) address[15 - i] = values[2 * i]! | (values[2 * i + 1]! << 4);
  return address;
}

const APEX = "pilot";
const RESPONDER = `ns.${APEX}`;
/** Trust can end at any time, and asking again costs nothing on the same host. */
const TTL_S = 15;
const NEGATIVE_TTL_S = 5;
