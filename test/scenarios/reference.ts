/**
 * The reference model: what may pass between whom, by the words of the operators and nothing else. It is deliberately smaller than
 * the product: a side consents from its ask or its approval on until it revokes, or until the time or the bytes that it named are
 * used up; by joining a network, also to its members. What messages that are lost or late make of that can only narrow it.
 */

/** What an operator named beside his approval; undefined: no limit. */
export interface Limits {
  readonly endsAtMs?: number | undefined;
  readonly maxBytes?: number | undefined;
}

interface Consent extends Limits {
  readonly givenAtMs: number;
  passedBytes: number;
}

export type Denied = "nothing" | "in" | "out" | "both";

export class Reference {
  /** Key: `by of`. Bound: ordered pairs of nodes. */
  readonly #given = new Map<string, Consent>();
  readonly #revokedAt = new Map<string, number>();
  readonly #everLimited = new Set<string>();
  /** Key: node. In the network now, by its operator's word; and ever. */
  readonly #members = new Set<number>();
  readonly #everMembers = new Set<number>();
  /** Key: `by of`: what the policy of one denies the other. */
  readonly #policies = new Map<string, Denied>();

  give(by: number, of: number, atMs: number, limits: Limits = {}): void {
    this.#given.set(`${by} ${of}`, { ...limits, givenAtMs: atMs, passedBytes: 0 });
  }

  revoke(by: number, of: number, atMs: number): void {
    this.#given.delete(`${by} ${of}`);
    this.#revokedAt.set(`${by} ${of}`, atMs);
  }

  join(node: number): void {
    this.#members.add(node);
    this.#everMembers.add(node);
  }

  leave(node: number): void {
    this.#members.delete(node);
  }

  /** Replaces what the policy of `by` denied anybody. */
  deny(by: number, of: number, what: Denied): void {
    for (const key of this.#policies.keys()) if (key.startsWith(`${by} `)) this.#policies.delete(key);
    this.#policies.set(`${by} ${of}`, what);
  }

  /** When it last did; undefined: never. */
  revokedAt(by: number, of: number): number | undefined {
    return this.#revokedAt.get(`${by} ${of}`);
  }

  has(by: number, of: number, atMs: number): boolean {
    const given = this.#given.get(`${by} ${of}`);
    if (given !== undefined) return given.endsAtMs === undefined || atMs <= given.endsAtMs;
    // Who has left may be a member yet as far as others have heard, and what was revoked in person no network gives back.
    return this.#members.has(by) && this.#everMembers.has(of) && this.revokedAt(by, of) === undefined;
  }

  /** In person, even if what was granted is used up. */
  hasGiven(by: number, of: number): boolean {
    return this.#given.has(`${by} ${of}`);
  }

  /** Both operators spoke for each other in person, and neither ever named a limit. */
  areFriends(a: number, b: number): boolean {
    const isFriend = (by: number, of: number) => this.hasGiven(by, of) && !this.#everLimited.has(`${by} ${of}`);
    return isFriend(a, b) && isFriend(b, a);
  }

  /** One of them named limits, which end somewhere in what both make of them. */
  noteLimits(by: number, of: number): void {
    this.#everLimited.add(`${by} ${of}`);
  }

  /** Why `by` must not let a packet out to, or in from, the other; undefined: it may. */
  barred(by: number, of: number, direction: "in" | "out", inNetwork: boolean, atMs: number): string | undefined {
    const side = direction === "in" ? "receiver" : "sender";
    if (!this.has(by, of, atMs)) return `no packet without the ${side}'s consent`;
    if (inNetwork && !this.#members.has(by)) return `no packet in a network that the ${side} is not in`;
    if (inNetwork && !this.#everMembers.has(of)) return "no packet in a network that the other was never in";
    const denied = this.#policies.get(`${by} ${of}`);
    if (!inNetwork && (denied === direction || denied === "both")) return `no packet that the ${side}'s policy denies`;
    return undefined;
  }

  /** Bytes of a packet that was sent then passed between the two; false when one of them had granted less by then. */
  pass(a: number, b: number, bytes: number, sentAtMs: number): boolean {
    let isGranted = true;
    for (const key of [`${a} ${b}`, `${b} ${a}`]) {
      const given = this.#given.get(key);
      if (given === undefined || sentAtMs <= given.givenAtMs) continue;
      given.passedBytes += bytes;
      if (given.maxBytes !== undefined && given.passedBytes > given.maxBytes) isGranted = false;
    }
    return isGranted;
  }
}
