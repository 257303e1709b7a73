/** An audit log in memory: what the daemon does with files, as plain values. */

import { EMPTY_CHAIN, Journal } from "../../src/audit/journal.ts";
import type { AuditEvent } from "../../src/audit/record.ts";
import { type Resumption, resume } from "../../src/audit/resume.ts";
import type { Seal, Signer } from "../../src/audit/seal.ts";
import { type Report, Verifier, type VerifierOptions } from "../../src/audit/verify.ts";
import type { WallClock } from "../../src/base/instant.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";

export const crypto = new NodeCrypto();
export const START = 1_900_000_000_000 as WallClock;

export function signer(first = 7): Signer {
  const seed = new Uint8Array(32).fill(first);
  return { publicKey: crypto.ed25519PublicKey(seed), sign: (message) => crypto.ed25519Sign(seed, message) };
}

export function event(name: string, fields: Record<string, unknown> = {}, at = START): AuditEvent {
  return { event: name, at, fields: () => fields };
}

export interface MemoryLogOptions {
  readonly maxFileBytes?: number;
  readonly keepFiles?: number;
  readonly signer?: Signer;
}

export class MemoryLog {
  /** Key: number. */
  readonly files = new Map<number, Buffer>();
  anchor: Seal | undefined;
  journal: Journal;
  readonly #options: Required<MemoryLogOptions>;

  constructor(options: MemoryLogOptions = {}) {
    this.#options = { maxFileBytes: 4_096, keepFiles: 100, signer: signer(), ...options };
    this.journal = this.#newJournal();
    this.journal.resume(EMPTY_CHAIN);
  }

  #newJournal(): Journal {
    return new Journal({ crypto, ...this.#options });
  }

  /** Writes all that waits; `tearAt` leaves only so many bytes of the last write, as a crash would. */
  flush(tearAt?: number): void {
    for (let write = this.journal.takeWrite(START); write !== undefined; write = this.journal.takeWrite(START)) {
      const before = write.opensFile ? Buffer.alloc(0) : this.files.get(write.file)!;
      const bytes = tearAt === undefined ? write.bytes : write.bytes.subarray(0, tearAt);
      this.files.set(write.file, Buffer.concat([before, bytes]));
      if (tearAt !== undefined) return;
      this.journal.written();
      for (const file of [...this.files.keys()]) if (file <= write.removeUpTo) this.files.delete(file);
    }
  }

  seal(): void {
    this.anchor = this.journal.seal();
  }

  /** The next run: what it found, with what it was told to do done. */
  restart(): Resumption {
    const files = this.numbers().map((number) => ({ number, bytes: this.files.get(number)!.length }));
    const anchor = this.anchor ?? "missing";
    const found = resume({ files, anchor, tailOf: (file) => this.files.get(file.number)!.subarray(-65_536) });
    if (found.cut !== undefined) {
      const { file, toBytes } = found.cut;
      if (toBytes === 0) this.files.delete(file);
      else this.files.set(file, this.files.get(file)!.subarray(0, toBytes));
    }
    this.journal = this.#newJournal();
    this.journal.resume(found.end, found.repair === undefined ? [] : [event("repair", found.repair)]);
    return found;
  }

  numbers(): number[] {
    return [...this.files.keys()].sort((a, b) => a - b);
  }

  verify(options: Partial<VerifierOptions> = {}): Report {
    const verifier = new Verifier({ crypto, anchor: this.anchor ?? "missing", ...options });
    const numbers = this.numbers();
    for (const number of numbers) {
      verifier.addFile(nameOf(number), number, this.files.get(number)!, number === numbers.at(-1));
    }
    return verifier.finish();
  }

  /** Each line with its line feed, by file. */
  lines(number: number): string[] {
    return (
      this.files
        .get(number)!
        .toString("utf8")
        .match(/[^\n]*\n/g) ?? []
    );
  }

  setLines(number: number, lines: readonly string[]): void {
    this.files.set(number, Buffer.from(lines.join("")));
  }

  /** Every record's fields, in order. */
  // biome-ignore lint/suspicious/noExplicitAny: tests reach into records
  records(): any[] {
    return this.numbers().flatMap((number) => this.lines(number).map((line) => JSON.parse(line)));
  }
}

export function nameOf(number: number): string {
  return `audit-${String(number).padStart(8, "0")}.jsonl`;
}

export function seqOf(line: string): number {
  return JSON.parse(line).seq;
}
