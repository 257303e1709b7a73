/**
 * Whether anybody uses a link, which decides what is spent on its path: NAT mappings are kept open and better ways are
 * looked for only while packets of programs passed lately. The packet path sets one flag; time is read when somebody looks.
 */
import { after, type Instant } from "../base/instant.ts";

export class Usage {
  #isNoted = false;
  #usedAt: Instant | undefined;

  /** A packet of a program passed. */
  note(): void {
    this.#isNoted = true;
  }

  /** Packets passed so lately that more are likely. */
  isWanted(now: Instant): boolean {
    if (this.#isNoted) this.#usedAt = now;
    this.#isNoted = false;
    return this.#usedAt !== undefined && after(this.#usedAt, WANTED_MS) > now;
  }
}

/** When to look for a direct way while frames go through the relay: often at first, then as long as the link is wanted. */
export class DirectSearch {
  #tries = 0;

  restart(): void {
    this.#tries = 0;
  }

  /** Everybody who just came up gets a chance to come off the relay, used or not. */
  get isSettling(): boolean {
    return this.#tries < DELAYS_MS.length;
  }

  /** Endpoints change, and a NAT of the peer may need its own side to send: both must hear of it now and then. */
  get asksAgain(): boolean {
    return this.#tries % ASK_AGAIN_TRIES === 0;
  }

  /** Counts a try; how long to wait before the next. */
  nextDelayMs(): number {
    const delayMs = DELAYS_MS[Math.min(this.#tries, DELAYS_MS.length - 1)]!;
    this.#tries++;
    return delayMs;
  }
}

/** 20 to 25 s, by link, so that many links do not speak in the same moment; NATs keep a mapping for 30 s or longer. */
export function upkeepMs(linkIndex: number): number {
  return UPKEEP_MS + ((linkIndex * 997) % UPKEEP_SPREAD_MS);
}

const UPKEEP_MS = 20_000;
const UPKEEP_SPREAD_MS = 5_000;
/** A punch takes a round trip or two, a firewall lifts some day. */
const DELAYS_MS = [200, 400, 800, 1_500, 3_000, 5_000];
const ASK_AGAIN_TRIES = 4;
/** A link is kept open for so long after its last packet: at most some 14 pings of 98 bytes and as many answers. */
const WANTED_MS = 300_000;
