/**
 * A node's daemon as a service of its host, under test/helpers/service-manager.py: what ends is started again, and the TUN
 * device lives on meanwhile. The node was started once by `lab.startNode`, so that the lab knows it, and stopped.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { LAUNCHER, type Lab, waitUntil } from "./lab.ts";
import type { LabProcess } from "./lab-process.ts";

export interface ServiceOptions {
  /** Further options of `pilot-tun up`. */
  readonly extraArgs?: readonly string[];
  readonly watchdogMs?: number;
  /** State is copied to a disk of its own, of this size, which goes with the service. */
  readonly diskKiB?: number;
}

export class LabService {
  readonly manager: LabProcess;
  readonly #lab: Lab;
  readonly #host: string;
  readonly #stateDir: string;

  constructor(lab: Lab, host: string, options: ServiceOptions = {}) {
    const folder = `${lab.folder}/${host}-state`;
    const disk = `${lab.folder}/${host}-disk`;
    this.#stateDir = options.diskKiB === undefined ? folder : disk;
    const paths = [`${lab.folder}/${host}.notify`, `${lab.folder}/${host}.orders`];
    const watchdogUs = String((options.watchdogMs ?? DEFAULT_WATCHDOG_MS) * 1000);
    const where = ["--registry", lab.registry, "--beacon", lab.beacon, "--state", this.#stateDir];
    const own = ["--tun", "pilot0", "--hostname", lab.node(host).name, ...(options.extraArgs ?? [])];
    const up = [LAUNCHER, "--control", lab.node(host).control, "up", ...where, ...own];
    const words = ["python3", MANAGER, ...paths, watchdogUs, ...up];
    this.#lab = lab;
    this.#host = host;
    // `ip netns exec` has given the shell mounts of its own: nobody else has this disk.
    const mount = `mkdir "$1" && mount -t tmpfs -o size="$2"k,mode=700 none "$1" && cp -a "$0/." "$1" && shift 2 && exec "$@"`;
    const onDisk = ["sh", "-c", mount, folder, disk, String(options.diskKiB), ...words];
    const [program, ...args] = options.diskKiB === undefined ? words : onDisk;
    this.manager = lab.spawn(host, program!, args);
  }

  /** The state folder as this process can see it. */
  get stateView(): string {
    return `/proc/${this.manager.pid}/root${this.#stateDir}`;
  }

  /** Of the daemon that was started last. */
  get daemonPid(): number {
    return Number(this.#said(/^started (\d+)$/gm).at(-1)?.[1]);
  }

  /** How often a daemon ended, by itself or not. */
  get ends(): number {
    return this.count(/^ended -?\d+$/gm);
  }

  /** How often the daemon said that it is ready. */
  get readyTimes(): number {
    return this.count(/^notify READY=1$/gm);
  }

  count(pattern: RegExp): number {
    return this.#said(pattern).length;
  }

  order(word: "restart" | "kill" | "stop"): void {
    writeFileSync(`${this.#lab.folder}/${this.#host}.orders`, `${word}\n`);
  }

  async waitUntilReady(times: number): Promise<void> {
    await waitUntil(
      `${this.#host} to be ready for the ${times}. time`,
      () => this.readyTimes >= times,
      READY_TIMEOUT_MS,
    );
  }

  #said(pattern: RegExp): RegExpExecArray[] {
    return [...this.manager.stdout.matchAll(pattern)];
  }
}

const MANAGER = fileURLToPath(new URL("service-manager.py", import.meta.url));
/** As in the units. */
const DEFAULT_WATCHDOG_MS = 30_000;
const READY_TIMEOUT_MS = 20_000;
