/** What streams have in common with other streams: memory, and room at a reference node. */
import { FlightShare } from "./flight-share.ts";
import { MemoryBudget } from "./memory-budget.ts";

export interface StreamShares {
  /** Received and not read. */
  readonly receiveBudget: MemoryBudget;
  /** Written and not acknowledged. */
  readonly sendBudget: MemoryBudget;
  readonly flight: FlightShare;
}

/** For a stream that shares with nobody. */
export function ownShares(): StreamShares {
  return {
    receiveBudget: new MemoryBudget(Number.POSITIVE_INFINITY),
    sendBudget: new MemoryBudget(Number.POSITIVE_INFINITY),
    flight: new FlightShare(),
  };
}
