/**
 * Sequence arithmetic on 32 bits (RFC 1982): numbers wrap, and "before" means less than half the circle behind.
 * Every comparison of sequence numbers in this folder goes through these.
 */

export function sequenceAdd(sequence: number, bytes: number): number {
  return (sequence + bytes) >>> 0;
}

/** How far `to` lies after `from`; negative when it lies before. */
export function sequenceDistance(from: number, to: number): number {
  return (to - from) | 0;
}

export function sequenceBefore(a: number, b: number): boolean {
  return sequenceDistance(b, a) < 0;
}

export function sequenceAfter(a: number, b: number): boolean {
  return sequenceDistance(b, a) > 0;
}
