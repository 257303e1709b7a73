/**
 * A soak: traffic, faults one after the other in an order made from a seed, after each the same questions, and at the end the
 * account of what was acknowledged and of what grew.
 */
import { Random } from "../helpers/random.ts";
import { allFaults, type Fault, type Lengths } from "./faults.ts";
import { type Growth, type GrowthLimits, growthOf, kibibytes, leakIn, type Sample, sampleOf } from "./leak.ts";
import { Churn, Downloads, Ledger } from "./witnesses.ts";
import { type NodeFacts, SERVICE_HOSTS, SoakWorld } from "./world.ts";

export interface SoakOptions extends Lengths {
  readonly seed: number;
  /** Rounds go on until then, each with every fault once; at least one. */
  readonly durationMs: number;
  readonly limits: GrowthLimits;
  /** What a daemon may hold at most at any time. */
  readonly memoryMaxMiB: number;
  /** Only faults whose names hold this. */
  readonly only?: string | undefined;
  /** Short conversations before all, until memory that is kept for reuse has grown to its size. */
  readonly warmUp: number;
  /** And after each fault. */
  readonly churn: number;
  readonly say: (line: string) => void;
}

export interface Account {
  readonly faults: number;
  /** Slowest return of traffic after a fault of each name, ms. */
  readonly slowestMs: ReadonlyMap<string, number>;
  /** Acknowledged records by ledger. */
  readonly records: ReadonlyMap<string, number>;
  readonly downloads: number;
  /** Of the daemon that lived through all of it; undefined after too few faults. */
  readonly growth: Growth | undefined;
  readonly peakRssMiB: Readonly<Record<string, number>>;
}

/** Throws when anything is not as it must be; a sentence with the fault says what. */
export async function soak(options: SoakOptions): Promise<Account> {
  const world = await SoakWorld.create();
  try {
    return await new Soak(world, options).run();
  } finally {
    await world.close();
  }
}

class Soak {
  readonly #world: SoakWorld;
  readonly #options: SoakOptions;
  readonly #random: Random;
  readonly #startedAt = performance.now();
  readonly #samples: Sample[] = [];
  readonly #slowestMs = new Map<string, number>();
  readonly #peakRssMiB: Record<string, number> = {};
  #facts: readonly NodeFacts[] = [];
  #ledgers: readonly Ledger[] = [];
  #downloads!: Downloads;
  #churn!: Churn;
  #plainChurn!: Churn;
  #faults = 0;

  constructor(world: SoakWorld, options: SoakOptions) {
    this.#world = world;
    this.#options = options;
    this.#random = new Random(options.seed);
  }

  async run(): Promise<Account> {
    await this.#begin();
    do {
      for (const fault of this.#round()) await this.#suffer(fault);
    } while (performance.now() - this.#startedAt < this.#options.durationMs);
    return await this.#settle();
  }

  async #begin(): Promise<void> {
    const { lab } = this.#world;
    const routes = [
      { from: "a", to: "b", port: 6001, survives: true },
      { from: "b", to: "a", port: 6002, survives: true },
      { from: "a", to: "c", port: 6003, survives: false },
    ];
    this.#ledgers = await Promise.all(routes.map((route) => Ledger.open(lab, route)));
    this.#downloads = await Downloads.open(lab, "b", DOWNLOAD_MIB);
    this.#churn = await Churn.open(lab, "a", "b");
    this.#plainChurn = await Churn.open(lab, "b", "c");
    this.#facts = await this.#allFacts();
    for (let stirred = 0; stirred < this.#options.warmUp; stirred += MOST_AT_ONCE) {
      await this.#stir(Math.min(MOST_AT_ONCE, this.#options.warmUp - stirred));
    }
    await (await this.#downloads.begin("a", "100M", 30)).whole;
  }

  async #suffer(fault: Fault): Promise<void> {
    this.#faults++;
    const ends = this.#ends(fault);
    try {
      // Goes on through the fault, and must be whole.
      const download = await this.#downloads.begin("a", DOWNLOAD_RATE, DOWNLOAD_PATIENCE_S);
      await fault.inject();
      await fault.heal();
      const tookMs = await this.#world.reaches(...fault.reach, fault.healedWithinMs);
      this.#slowestMs.set(fault.name, Math.max(tookMs, this.#slowestMs.get(fault.name) ?? 0));
      await download.whole;
      for (const ledger of this.#ledgers) await ledger.advances(LEDGER_PATIENCE_MS);
      await this.#checkDaemons();
      if (this.#ends(fault) !== ends) throw new Error("a daemon ended by it");
      await this.#stir(this.#options.churn);
      this.#takeSamples();
      this.#tell(fault, tookMs);
    } catch (cause) {
      throw new Error(`after "${fault.name}" (fault ${this.#faults}): ${(cause as Error).message}`, { cause });
    }
  }

  /** How often daemons ended that this fault may not end. */
  #ends(fault: Fault): number {
    const { services } = this.#world;
    return SERVICE_HOSTS.reduce((sum, host) => sum + (host === fault.ends ? 0 : services[host].ends), 0);
  }

  /** Both with the peer of our own kind and with the plain one, which takes sockets and streams of the daemon. */
  async #stir(count: number): Promise<void> {
    await this.#churn.stir(count);
    await this.#plainChurn.stir(Math.ceil(count / PLAIN_SHARE));
  }

  /** They live, have no problem, and are who they were, trusting whom they trusted. */
  async #checkDaemons(): Promise<void> {
    for (const host of SERVICE_HOSTS) await this.#world.isContent(host, CONTENT_MS);
    const [before, after] = [JSON.stringify(this.#facts), JSON.stringify(await this.#allFacts())];
    if (before !== after) throw new Error(`identity or trust changed: ${before} became ${after}`);
  }

  #allFacts(): Promise<NodeFacts[]> {
    return Promise.all(["a", "b", "c"].map((host) => this.#world.facts(host)));
  }

  #takeSamples(): void {
    for (const host of SERVICE_HOSTS) {
      const peak = kibibytes(this.#world.statusOf(host), "VmHWM") / 1024;
      this.#peakRssMiB[host] = Math.max(peak, this.#peakRssMiB[host] ?? 0);
      if (peak > this.#options.memoryMaxMiB) throw new Error(`the daemon on ${host} held ${peak.toFixed(0)} MiB`);
    }
    this.#samples.push(sampleOf(this.#world.services.b.daemonPid)!);
  }

  #tell(fault: Fault, tookMs: number): void {
    const at = ((performance.now() - this.#startedAt) / 1000).toFixed(0).padStart(5);
    const { rssMiB, descriptors } = this.#samples.at(-1)!;
    const records = this.#ledgers.map((ledger) => `${ledger.name} ${ledger.acknowledged}`).join(", ");
    const elder = `b: ${rssMiB.toFixed(1)} MiB, ${descriptors} descriptors`;
    this.#options.say(`${at} s  ${fault.name}: back after ${tookMs.toFixed(0)} ms; ${elder}; ${records}`);
  }

  async #settle(): Promise<Account> {
    const records = new Map<string, number>();
    for (const ledger of this.#ledgers) records.set(ledger.name, await ledger.close());
    for (const host of SERVICE_HOSTS) {
      const dir = `${this.#world.services[host].stateView}/audit`;
      await this.#world.lab.pilot(host, "audit", "verify", "--dir", dir);
    }
    const growth = growthOf(this.#samples);
    const leak = growth && leakIn(growth, this.#options.limits);
    if (leak !== undefined) throw new Error(`the daemon on b leaks: ${leak}`);
    const { count } = this.#downloads;
    const [slowestMs, peakRssMiB] = [this.#slowestMs, this.#peakRssMiB];
    return { faults: this.#faults, slowestMs, records, downloads: count, growth, peakRssMiB };
  }

  #round(): Fault[] {
    const { only } = this.#options;
    const faults = allFaults(this.#world, this.#options).filter(
      ({ name }) => only === undefined || name.includes(only),
    );
    if (faults.length === 0) throw new Error(`there is no fault with "${only}" in its name`);
    for (let i = faults.length - 1; i > 0; i--) {
      const j = this.#random.between(0, i);
      [faults[i], faults[j]] = [faults[j]!, faults[i]!];
    }
    return faults;
  }
}

/** The account in lines for people. */
export function accountLines({ faults, slowestMs, records, downloads, growth, peakRssMiB }: Account): string[] {
  const kept = [...records].map(([name, count]) => `${name} ${count}`).join(", ");
  const peaks = Object.entries(peakRssMiB).map(([host, peak]) => `${host} ${peak.toFixed(1)} MiB`);
  return [
    `${faults} faults; ${downloads} downloads, each whole; acknowledged and there: ${kept}`,
    `most memory that a daemon held: ${peaks.join(", ")}`,
    ...(growth === undefined ? [] : [growthLine(growth)]),
    ...[...slowestMs].map(([name, ms]) => `slowest return ${ms.toFixed(0).padStart(6)} ms  ${name}`),
  ];
}

export function growthLine({ samples, from, to }: Growth): string {
  const at = ({ rssMiB, descriptors }: Sample): string => `${rssMiB.toFixed(1)} MiB and ${descriptors} descriptors`;
  return `the daemon that lived through it: ${at(from)} in the first third of ${samples} samples, ${at(to)} in the last`;
}

const DOWNLOAD_MIB = 3;
const DOWNLOAD_RATE = "1500K";
const DOWNLOAD_PATIENCE_S = 120;
const LEDGER_PATIENCE_MS = 60_000;
const CONTENT_MS = 20_000;
const MOST_AT_ONCE = 1_000;
const PLAIN_SHARE = 4;
