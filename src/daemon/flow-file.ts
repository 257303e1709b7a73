/**
 * The file `flows.json`, from an orderly end to the start that follows at once. It is read once and gone, and counts only
 * in the same boot of the machine and for two minutes, by a clock that nobody sets: what is older says nothing any more.
 */
import type { Problem } from "../base/error-code.ts";
import { type CarriedFlow, parseCarriedFlows } from "../engine/carried-flows.ts";
import { type BootTime, bootNow } from "../io/boot-clock.ts";
import type { StateDirectory } from "../io/state-directory.ts";

export class FlowFile {
  /** What the last run left behind; empty if it did not end just now, or not in order. */
  readonly flows: readonly CarriedFlow[];
  /** The file was there and could not be read. */
  readonly problem: Problem | undefined;
  readonly #state: StateDirectory;
  readonly #clock: () => BootTime;

  private constructor(state: StateDirectory, clock: () => BootTime) {
    const { value, problem } = state.load(FILE, parseFile);
    state.remove(FILE);
    const { boot, sinceBootMs } = clock();
    const ageMs = value?.boot === boot ? sinceBootMs - value.sinceBootMs : Number.POSITIVE_INFINITY;
    this.flows = ageMs >= 0 && ageMs <= FRESH_MS ? value!.flows : [];
    this.problem = problem;
    this.#state = state;
    this.#clock = clock;
  }

  /** Reads it, and takes it away. */
  static take(state: StateDirectory, clock: () => BootTime = bootNow): FlowFile {
    return new FlowFile(state, clock);
  }

  /** Throws PilotError `state_unwritable`. */
  save(flows: readonly CarriedFlow[]): void {
    if (flows.length > 0) this.#state.save(FILE, { ...this.#clock(), flows });
  }
}

function parseFile(json: unknown): (BootTime & { readonly flows: CarriedFlow[] }) | undefined {
  if (typeof json !== "object" || json === null) return undefined;
  const { boot, sinceBootMs, flows } = json as Record<string, unknown>;
  const parsed = parseCarriedFlows(flows);
  if (typeof boot !== "string" || typeof sinceBootMs !== "number" || parsed === undefined) return undefined;
  return { boot, sinceBootMs, flows: parsed };
}

const FILE = "flows.json";
const FRESH_MS = 120_000;
