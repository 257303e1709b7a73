/**
 * Remembers one bit for each of very many digests, in one block of memory: no object for each, so that the collector
 * never looks at them. Keys are digests of at least 16 bytes that nobody else can choose or foresee (of a secret and the
 * matter), of which 127 bits are compared. Bounded: a full bucket gives up one of its entries.
 */
export class DigestTable {
  readonly #buckets: number;
  /** Entries of four words, in buckets of ENTRIES; the lowest bit of the last word is the remembered one. */
  readonly #words: Uint32Array;
  #victim = 0;

  /** `capacity` is a power of two, and at least 4. */
  constructor(capacity: number) {
    this.#buckets = capacity / ENTRIES;
    this.#words = new Uint32Array(capacity * WORDS);
  }

  /** `digest` has one byte for each character (Node's "binary"). */
  get(digest: string): boolean | undefined {
    const at = this.#find(digest);
    return at === undefined ? undefined : (this.#words[at + 3]! & 1) === 1;
  }

  set(digest: string, bit: boolean): void {
    const at = this.#find(digest) ?? this.#room(digest);
    for (let word = 0; word < WORDS; word++) this.#words[at + word] = wordAt(digest, word);
    this.#words[at + 3] = ((this.#words[at + 3]! & ~1) | (bit ? 1 : 0)) >>> 0;
  }

  #find(digest: string): number | undefined {
    const words = this.#words;
    const a = wordAt(digest, 0);
    const b = wordAt(digest, 1);
    const c = wordAt(digest, 2);
    const d = wordAt(digest, 3);
    const start = this.#bucketAt(a);
    for (let at = start; at < start + BUCKET_WORDS; at += WORDS) {
      const isSame = words[at] === a && words[at + 1] === b && words[at + 2] === c && (words[at + 3]! ^ d) >>> 1 === 0;
      if (isSame) return at;
    }
    return undefined;
  }

  /** An empty entry of its bucket, or each in turn. */
  #room(digest: string): number {
    const start = this.#bucketAt(wordAt(digest, 0));
    for (let at = start; at < start + BUCKET_WORDS; at += WORDS) if (this.#isEmpty(at)) return at;
    this.#victim = (this.#victim + 1) % ENTRIES;
    return start + this.#victim * WORDS;
  }

  #isEmpty(at: number): boolean {
    const words = this.#words;
    return (words[at]! | words[at + 1]! | words[at + 2]! | words[at + 3]!) === 0;
  }

  #bucketAt(word: number): number {
    return (word & (this.#buckets - 1)) * BUCKET_WORDS;
  }
}

function wordAt(digest: string, word: number): number {
  const at = 4 * word;
  const high = (digest.charCodeAt(at) << 24) | (digest.charCodeAt(at + 1) << 16);
  return (high | (digest.charCodeAt(at + 2) << 8) | digest.charCodeAt(at + 3)) >>> 0;
}

const WORDS = 4;
const ENTRIES = 4;
const BUCKET_WORDS = WORDS * ENTRIES;
