/** The file `trust.json`: the trust book, and where the clock of its leases stood when it was written. */
import type { Problem } from "../base/error-code.ts";
import { bootNow } from "../io/boot-clock.ts";
import { now, wallNow } from "../io/clock.ts";
import type { StateDirectory } from "../io/state-directory.ts";
import type { LeaseTime } from "../trust/lease.ts";
import { type LeaseMark, leaseMarkToJson, leaseTimeAt, parseLeaseMark } from "../trust/lease-clock.ts";
import { TrustBook } from "../trust/trust-book.ts";

export class TrustFile {
  readonly book: TrustBook;
  /** The file was there and could not be read: there is no trust. */
  readonly problem: Problem | undefined;
  readonly #state: StateDirectory;
  readonly #mark: LeaseMark | undefined;
  /** The kernel's clock ahead of this process's, which stands still while the machine sleeps. */
  #aheadMs = bootNow().sinceBootMs - now();

  constructor(state: StateDirectory) {
    const { value, problem } = state.load("trust.json", parseTrustFile);
    this.#state = state;
    this.#mark = value?.mark;
    this.book = value?.book ?? new TrustBook();
    this.problem = problem;
  }

  /** What the clock of leases shows, by what was written last. */
  leaseNow(): LeaseTime {
    return leaseTimeAt(this.#mark, { ...bootNow(), wall: wallNow() });
  }

  /** How long the machine slept since this was asked last. */
  takeSleepMs(): number {
    const aheadMs = bootNow().sinceBootMs - now();
    const sleptMs = aheadMs - this.#aheadMs;
    if (sleptMs < LEAST_SLEEP_MS) return 0;
    this.#aheadMs = aheadMs;
    return sleptMs;
  }

  /** Throws PilotError `state_unwritable`. `at`: what the clock of leases shows now. */
  save(at: LeaseTime): void {
    const mark = leaseMarkToJson({ at, ...bootNow(), wall: wallNow() });
    this.#state.save("trust.json", { ...this.book.toJson(), lease_clock: mark });
  }
}

/** Undefined too for leases that end at a time nobody can tell. */
export function parseTrustFile(json: unknown): { book: TrustBook; mark: LeaseMark | undefined } | undefined {
  const book = TrustBook.fromJson(json);
  const mark = parseLeaseMark((json as { lease_clock?: unknown } | null)?.lease_clock);
  const isTimed = [...(book?.records() ?? [])].some(
    ({ lease, peerLease }) => lease?.endsAt !== undefined || peerLease?.endsAt !== undefined,
  );
  return book === undefined || (isTimed && mark === undefined) ? undefined : { book, mark };
}

/** The kernel tells its clock in steps of 10 ms. */
const LEAST_SLEEP_MS = 100;
