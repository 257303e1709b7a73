/**
 * The service manager that started us, by the protocol of sd_notify(3) and sd_listen_fds(3): it is told when we are
 * ready, that we live, and is given the TUN device to keep over a restart. Everything is a no-op without one.
 */
import { closeSync } from "node:fs";
import { checked, nativeShim, sendToUnixSocket } from "./native.ts";

export class ServiceManager {
  readonly #socket: string | undefined;
  readonly #watchdogMs: number | undefined;
  /** Key: name given with the descriptor. Bound: what the manager kept for us. */
  readonly #kept: Map<string, number>;
  #watchdog: NodeJS.Timeout | undefined;

  /** Takes the variables away from `environment`, so that no program we start takes them for its own. */
  constructor(environment: NodeJS.ProcessEnv, pid: number) {
    this.#socket = environment.NOTIFY_SOCKET || undefined;
    this.#watchdogMs = watchdogMs(environment, pid);
    this.#kept = keptDescriptors(environment, pid);
    for (const name of VARIABLES) delete environment[name];
  }

  /** Descriptors that an earlier run gave to keep; each can be taken once. */
  take(name: string): number | undefined {
    const fd = this.#kept.get(name);
    this.#kept.delete(name);
    return fd;
  }

  /** Until told otherwise, `fd` stays open while no daemon runs. A second one of the same name is kept beside the first. */
  keep(name: string, fd: number): void {
    this.#tell(`FDSTORE=1\nFDNAME=${name}`, fd);
  }

  forget(name: string): void {
    this.#tell(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** From now on it is told regularly that the event loop turns; what was kept and not taken is closed. */
  ready(status: string): void {
    for (const [name, fd] of this.#kept) {
      this.forget(name);
      closeSync(fd);
    }
    this.#kept.clear();
    this.#tell(`READY=1\nSTATUS=${oneLine(status)}`);
    if (this.#watchdogMs === undefined || this.#watchdog !== undefined) return;
    this.#watchdog = setInterval(() => this.#tell("WATCHDOG=1"), this.#watchdogMs / WATCHDOG_SIGNS);
    this.#watchdog.unref();
  }

  /** Shown by the manager beside the state. */
  status(text: string): void {
    this.#tell(`STATUS=${oneLine(text)}`);
  }

  stopping(): void {
    clearInterval(this.#watchdog);
    this.#tell("STOPPING=1");
  }

  #tell(message: string, fd?: number): void {
    if (this.#socket === undefined) return;
    try {
      sendToUnixSocket(this.#socket, message, fd);
    } catch {
      // A manager that went away or is too busy to listen is no reason to stop working.
    }
  }
}

function watchdogMs({ WATCHDOG_USEC, WATCHDOG_PID }: NodeJS.ProcessEnv, pid: number): number | undefined {
  const ms = Number(WATCHDOG_USEC) / 1000;
  const isOurs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === pid;
  return isOurs && ms >= 1 ? ms : undefined;
}

function keptDescriptors(
  { LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES }: NodeJS.ProcessEnv,
  pid: number,
): Map<string, number> {
  const count = Number(LISTEN_FDS);
  if (Number(LISTEN_PID) !== pid || !Number.isInteger(count) || count < 1 || count > MAX_KEPT) return new Map();
  const names = (LISTEN_FDNAMES ?? "").split(":");
  return new Map(Array.from({ length: count }, (_, index) => [names[index] ?? "", FIRST_FD + index]));
}

/** What a manager kept for this process, for the program that it becomes: Node closes every descriptor but three on the way. */
export function handOnKept(environment: NodeJS.ProcessEnv, pid: number): void {
  for (const fd of keptDescriptors(environment, pid).values()) checked(nativeShim().handOn(fd), "fcntl");
}

function oneLine(text: string): string {
  return text.replaceAll("\n", " ");
}

const VARIABLES = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
/** SD_LISTEN_FDS_START. */
const FIRST_FD = 3;
const MAX_KEPT = 64;
/** How often within the watchdog's time. */
const WATCHDOG_SIGNS = 3;
