/**
 * The reference model: who may talk to whom, by the words of the operators and nothing else. It is deliberately smaller
 * than trust in the product: a side consents from its ask or its approval on until it revokes, and packets may pass while
 * both do. What the product makes of leases, networks or lost messages can only narrow that.
 */
export class Consents {
  /** Key: `by of`. Bound: ordered pairs of nodes. */
  readonly #given = new Set<string>();
  readonly #revokedAt = new Map<string, number>();

  give(by: number, of: number): void {
    this.#given.add(`${by} ${of}`);
  }

  revoke(by: number, of: number, atMs: number): void {
    this.#given.delete(`${by} ${of}`);
    this.#revokedAt.set(`${by} ${of}`, atMs);
  }

  has(by: number, of: number): boolean {
    return this.#given.has(`${by} ${of}`);
  }

  /** When it last did; undefined: never. */
  revokedAt(by: number, of: number): number | undefined {
    return this.#revokedAt.get(`${by} ${of}`);
  }

  mayTalk(a: number, b: number): boolean {
    return this.has(a, b) && this.has(b, a);
  }
}
