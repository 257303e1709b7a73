/**
 * A bad wire for a lab: the cable of one host to the switch loses, delays, reorders and duplicates UDP in both
 * directions, as `impaired-wire.py` draws it from a seed. Everything else passes, so that registry and ssh are as ever.
 *
 *   host ── to-host [bridge] tap ── impaired-wire.py ── tap [br0] ── all others
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Lab } from "./lab.ts";
import { NET } from "./lab-network.ts";
import type { LabProcess } from "./lab-process.ts";

/** Of each UDP datagram; what is not given is 0. */
export interface Impairment {
  /** Shares, 0 to 1. */
  readonly loss?: number;
  readonly reorder?: number;
  readonly duplicate?: number;
  /** `jitterMs` is added to the delay as an even spread, `reorderMs` to what others shall overtake. */
  readonly delayMs?: number;
  readonly jitterMs?: number;
  readonly reorderMs?: number;
}

/** Datagrams since the wire was made. */
export interface WireCounts {
  readonly seen: number;
  readonly lost: number;
  readonly reordered: number;
  readonly duplicated: number;
  /** What the wire itself could not carry: a test that sees any measured nothing. */
  readonly overflowed: number;
}

export class LabWire {
  readonly #process: LabProcess;
  readonly #settings: string;
  #round = 0;

  /** The wire is good until `become`. */
  static async insert(lab: Lab, host: string, seed: number): Promise<LabWire> {
    const settings = `${lab.folder}/wire-${host}.json`;
    const [inner, outer, bridge] = [`wi-${host}`, `wo-${host}`, `wb-${host}`];
    const process = lab.spawn(NET, "python3", ["-u", PROGRAM, inner, outer, String(seed), settings]);
    await process.waitForLine(/^ready$/);
    for (const words of [
      `link add ${bridge} type bridge`,
      `link set dev ${bridge} up`,
      `link set dev to-${host} master ${bridge}`,
      `link set dev ${inner} master ${bridge} up`,
      `link set dev ${outer} master br0 up`,
    ]) {
      const { code, stderr } = await lab.exec(NET, "ip", words.split(" "));
      if (code !== 0) throw new Error(`ip ${words}: ${stderr}`);
    }
    console.log(`the wire of ${host} draws from seed ${seed}`);
    return new LabWire(process, settings);
  }

  private constructor(process: LabProcess, settings: string) {
    this.#process = process;
    this.#settings = settings;
  }

  /** Returns what happened until now. */
  async become(impairment: Impairment): Promise<WireCounts> {
    const round = ++this.#round;
    writeFileSync(this.#settings, JSON.stringify({ ...GOOD, ...impairment, round }));
    this.#process.kill("SIGHUP");
    return JSON.parse(await this.#process.waitForLine(new RegExp(`"round": ${round}\\b`)));
  }
}

const PROGRAM = fileURLToPath(new URL("impaired-wire.py", import.meta.url));
const GOOD: Required<Impairment> = { loss: 0, reorder: 0, duplicate: 0, delayMs: 0, jitterMs: 0, reorderMs: 10 };
