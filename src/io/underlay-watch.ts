/**
 * Notices that this machine is somewhere else: another address, interface, default route or cable, or a sleep. The kernel
 * tells when to look (rtnetlink); a look costs a millisecond or two, too much for one each half second of an idle day. A
 * sleep shows as wall time or timer time that jumped, which is two clocks to read.
 */
import { readFileSync } from "node:fs";
import type { LocalAddress } from "../base/endpoint.ts";
import { now, wallNow } from "./clock.ts";
import { localAddresses } from "./local-addresses.ts";
import { watchLinks } from "./native.ts";

export interface UnderlayChange {
  readonly local: readonly LocalAddress[];
  /** Also true when addresses are the same but interface, route or cable changed: NAT mappings may be others. */
  readonly resumed: boolean;
}

export class UnderlayWatch {
  readonly #ownInterface: string;
  readonly #changed: (change: UnderlayChange) => void;
  readonly #timer: NodeJS.Timeout;
  /** Ends the kernel's notices; undefined where there are none. */
  readonly #endNotices: (() => void) | undefined;
  #noticed: NodeJS.Timeout | undefined;
  #seen: Sight;
  /** Ticks until it looks without being told to. */
  #ticksLeft = 1;
  #tickedAt = now();
  #wallOffsetMs = wallNow() - now();

  /** `changed` is called at once with the present addresses, later only after changes. */
  constructor(ownInterface: string, changed: (change: UnderlayChange) => void) {
    this.#ownInterface = ownInterface;
    this.#changed = changed;
    this.#endNotices = watchLinks(() => this.#notice());
    this.#seen = see(ownInterface);
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
    changed({ local: this.#seen.local, resumed: false });
  }

  close(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#noticed);
    this.#endNotices?.();
  }

  /** One change makes several notices, and some interfaces never fall silent: one look for all of a while. */
  #notice(): void {
    this.#noticed ??= setTimeout(() => {
      this.#noticed = undefined;
      this.#look(false);
    }, NOTICE_MS).unref();
  }

  #tick(): void {
    const jumped = this.#clockJumped();
    if (jumped || --this.#ticksLeft <= 0) this.#look(jumped);
  }

  #look(jumped: boolean): void {
    const before = this.#seen;
    const seen = this.#see();
    this.#ticksLeft = this.#endNotices === undefined || seen === undefined ? 1 : TICKS_PER_LOOK;
    this.#seen = seen ?? before;
    if (this.#seen.fingerprint === before.fingerprint && !jumped) return;
    this.#changed({ local: this.#seen.local, resumed: true });
  }

  /** Out of descriptors or memory one sees nothing, which is no sign that something changed, and looks again soon. */
  #see(): Sight | undefined {
    try {
      return see(this.#ownInterface);
    } catch {
      return undefined;
    }
  }

  /** The monotonic clock stands still while the machine sleeps; a stopped process only wakes late. */
  #clockJumped(): boolean {
    const at = now();
    const lateMs = at - this.#tickedAt - TICK_MS;
    const offsetMs = wallNow() - at;
    const jumpMs = offsetMs - this.#wallOffsetMs;
    this.#tickedAt = at;
    this.#wallOffsetMs = offsetMs;
    return lateMs > LATE_MS || jumpMs > JUMP_MS;
  }
}

interface Sight {
  readonly local: readonly LocalAddress[];
  readonly fingerprint: string;
}

/** Throws the system's errors. */
function see(ownInterface: string): Sight {
  const local = localAddresses(ownInterface);
  return { local, fingerprint: fingerprintOf(ownInterface, local) };
}

function fingerprintOf(ownInterface: string, local: readonly LocalAddress[]): string {
  const interfaces = interfacesIn(readSome("/proc/self/net/dev_mcast")).filter((entry) => entry.name !== ownInterface);
  return JSON.stringify([
    local.map(({ address }) => address),
    interfaces.map(
      ({ index, name }) => `${index} ${name} ${readSome(`/sys/class/net/${name}/carrier_changes`).trim()}`,
    ),
    defaultRoutesIn(readSome("/proc/self/net/route")),
  ]);
}

/** Lines `index name users global address`: an interface that was removed and made again has another index. */
export function interfacesIn(text: string): { index: string; name: string }[] {
  const seen = new Map<string, { index: string; name: string }>();
  for (const line of text.split("\n")) {
    const [index, name] = line.trim().split(/\s+/);
    if (index !== undefined && name !== undefined) seen.set(index, { index, name });
  }
  return [...seen.values()];
}

/** Interface and gateway of each default route, lines of /proc/net/route; they stand at its beginning. */
export function defaultRoutesIn(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.split("\t"))
    .filter((fields) => fields[1] === "00000000" && fields[7] === "00000000")
    .map((fields) => `${fields[0]} ${fields[2]}`);
}

function readSome(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch (error) {
    if (SHORTAGES.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
    return "";
  }
}

const SHORTAGES: ReadonlySet<string> = new Set(["EMFILE", "ENFILE", "ENOMEM"]);
const TICK_MS = 500;
/** In case a notice was lost. */
const TICKS_PER_LOOK = 40;
/** Addresses and routes of one change come within this time. */
const NOTICE_MS = 50;
/** Longer than any honest pause of a busy process. */
const LATE_MS = 5_000;
/** More than a clock adjustment usually steps, less than any sleep that matters. */
const JUMP_MS = 3_000;
