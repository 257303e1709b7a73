/** What streams have in common with other streams: memory, and room at a reference node. */
import { BlockPool } from "../base/block-pool.ts";
import { FlightShare } from "./flight-share.ts";
import { MemoryBudget } from "./memory-budget.ts";

export interface StreamShares {
  /** Received and not read. */
  readonly receiveBudget: MemoryBudget;
  /** Written and not acknowledged. */
  readonly sendBudget: MemoryBudget;
  readonly flight: FlightShare;
  /** What large pieces of received data lie in; and written data that came from it goes back there. */
  readonly blocks: BlockPool;
}

/** For a stream that shares with nobody. */
export function ownShares(): StreamShares {
  return {
    receiveBudget: new MemoryBudget(Number.POSITIVE_INFINITY),
    sendBudget: new MemoryBudget(Number.POSITIVE_INFINITY),
    flight: new FlightShare(),
    blocks: new BlockPool(),
  };
}
