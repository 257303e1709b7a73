/**
 * Notices that this machine is somewhere else: another address, interface, default route or cable, or a sleep. It looks
 * twice a second, which costs some 0.1 ms each time; the kernel's own notices (rtnetlink) would save that but reach Node
 * only through another process or more native code. A sleep shows as wall time or timer time that jumped.
 */
import { readFileSync } from "node:fs";
import type { LocalAddress } from "../base/endpoint.ts";
import { now, wallNow } from "./clock.ts";
import { localAddresses } from "./local-addresses.ts";

export interface UnderlayChange {
  readonly local: readonly LocalAddress[];
  /** Also true when addresses are the same but interface, route or cable changed: NAT mappings may be others. */
  readonly resumed: boolean;
}

export class UnderlayWatch {
  readonly #ownInterface: string;
  readonly #changed: (change: UnderlayChange) => void;
  readonly #timer: NodeJS.Timeout;
  #seen: Sight;
  #lookedAt = now();
  #wallOffsetMs = wallNow() - now();

  /** `changed` is called at once with the present addresses, later only after changes. */
  constructor(ownInterface: string, changed: (change: UnderlayChange) => void) {
    this.#ownInterface = ownInterface;
    this.#changed = changed;
    this.#seen = see(ownInterface);
    this.#timer = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
    this.#timer.unref();
    changed({ local: this.#seen.local, resumed: false });
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const before = this.#seen;
    this.#seen = this.#seeAgain();
    const jumped = this.#clockJumped();
    if (this.#seen.fingerprint === before.fingerprint && !jumped) return;
    this.#changed({ local: this.#seen.local, resumed: true });
  }

  /** Out of descriptors or memory one sees nothing, which is no sign that something changed. */
  #seeAgain(): Sight {
    try {
      return see(this.#ownInterface);
    } catch {
      return this.#seen;
    }
  }

  /** The monotonic clock stands still while the machine sleeps; a stopped process only wakes late. */
  #clockJumped(): boolean {
    const at = now();
    const lateMs = at - this.#lookedAt - LOOK_INTERVAL_MS;
    const offsetMs = wallNow() - at;
    const jumpMs = offsetMs - this.#wallOffsetMs;
    this.#lookedAt = at;
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
const LOOK_INTERVAL_MS = 500;
/** Longer than any honest pause of a busy process. */
const LATE_MS = 5_000;
/** More than a clock adjustment usually steps, less than any sleep that matters. */
const JUMP_MS = 3_000;
