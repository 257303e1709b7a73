/**
 * Endpoints by the words of a socket address, and back, without making text for each datagram. Endpoints that were found
 * here keep their words.
 */
import type { Endpoint } from "../base/endpoint.ts";
import { formatIp, parseIp } from "../wire/underlay-address.ts";

export class EndpointCache {
  /** By hash; bounded, a later endpoint with the same hash takes the place. */
  readonly #entries: (FoundEndpoint | undefined)[];

  /** A power of two. */
  constructor(entries: number) {
    this.#entries = new Array(entries);
  }

  /** The endpoint whose address is the four words at `at`; undefined for what is no address of a peer. */
  find(words: Int32Array, at: number, port: number): Endpoint | undefined {
    const hash =
      words[at]! ^ Math.imul(words[at + 1]!, 31) ^ Math.imul(words[at + 3]!, 0x9e3779b1) ^ Math.imul(port, 0x85ebca6b);
    const index = (hash ^ (hash >>> 15)) & (this.#entries.length - 1);
    const found = this.#entries[index];
    if (found !== undefined && found.port === port && isSame(found.words, words, at)) return found;
    return this.#add(index, words.slice(at, at + 4), port);
  }

  #add(index: number, words: Int32Array, port: number): Endpoint | undefined {
    const address = parseIp(formatIp(new Uint8Array(words.buffer))!);
    if (address === undefined || port === 0) return undefined;
    const found = new FoundEndpoint(formatIp(address)!, port, words);
    this.#entries[index] = found;
    return found;
  }
}

class FoundEndpoint implements Endpoint {
  readonly address: string;
  readonly port: number;
  readonly words: Int32Array;

  constructor(address: string, port: number, words: Int32Array) {
    this.address = address;
    this.port = port;
    this.words = words;
  }
}

/** The four words of an endpoint's address; IPv4 is mapped. */
export function addressWords(endpoint: Endpoint): Int32Array {
  if (endpoint instanceof FoundEndpoint) return endpoint.words;
  const address = parseIp(endpoint.address)!;
  const bytes = new Uint8Array(16);
  if (address.length === 4) bytes.set([0xff, 0xff], 10);
  bytes.set(address, 16 - address.length);
  return new Int32Array(bytes.buffer);
}

function isSame(words: Int32Array, others: Int32Array, at: number): boolean {
  return (
    words[0] === others[at] && words[1] === others[at + 1] && words[2] === others[at + 2] && words[3] === others[at + 3]
  );
}
