/** Runs `flood.c` in a lab: datagrams at a fixed rate, from sources that are made up. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { toHex } from "../../src/base/bytes.ts";
import type { FloodDatagram } from "./flood-datagrams.ts";
import type { Lab } from "./lab.ts";
import type { LabProcess } from "./lab-process.ts";

/** Of the network that tests may use for anything (RFC 2544); hosts of the lab have a route for answers to it. */
export const MADE_UP = "198.18.0.0/15";

export interface FloodTarget {
  readonly address: string;
  readonly port: number;
}

export interface FloodPlan {
  /** Datagrams a second. */
  readonly rate: number;
  readonly seconds: number;
  /** `address:port`, or a prefix out of which each datagram has another source. */
  readonly from?: string;
}

export class Flooder {
  readonly #lab: Lab;
  readonly #host: string;
  readonly #program: string;

  /** Builds the program into the lab's folder, and lets the hosts of the lab answer to made-up sources (into nothing). */
  static async create(lab: Lab, host: string): Promise<Flooder> {
    const program = `${lab.folder}/flood`;
    const source = fileURLToPath(new URL("./flood.c", import.meta.url));
    execFileSync(process.env["CC"] ?? "cc", [
      "-std=gnu11",
      "-O2",
      "-Wall",
      "-Wextra",
      "-Werror",
      "-o",
      program,
      source,
    ]);
    const sink = lab.network.addressOf(host);
    await expectOk(lab, host, ["route", "add", "blackhole", MADE_UP]);
    for (const other of lab.network.allHosts) {
      if (other !== host) await expectOk(lab, other, ["route", "add", MADE_UP, "via", sink]);
    }
    return new Flooder(lab, host, program);
  }

  private constructor(lab: Lab, host: string, program: string) {
    this.#lab = lab;
    this.#host = host;
    this.#program = program;
  }

  /** Until the plan's seconds are over, or `stop` is called on what this returns. */
  async start(target: FloodTarget, datagrams: readonly FloodDatagram[], plan: FloodPlan): Promise<LabProcess> {
    const { rate, seconds, from = MADE_UP } = plan;
    const input = datagrams.map((each) => `${each.randomFrom} ${each.randomBytes} ${toHex(each.bytes)}\n`).join("");
    const args = [target.address, String(target.port), String(rate), String(seconds), from];
    const flood = this.#lab.spawn(this.#host, this.#program, args, { input });
    await flood.waitForLine(/flooding/);
    return flood;
  }
}

/** How many datagrams a flood that has ended sent. */
export async function sentBy(flood: LabProcess): Promise<number> {
  await flood.ended;
  const sent = Number(flood.stdout.trim().split("\n").at(-1));
  if (!(sent > 0)) throw new Error(`the flood did not run: ${flood.report()}`);
  return sent;
}

async function expectOk(lab: Lab, host: string, args: readonly string[]): Promise<void> {
  const { code, stderr } = await lab.exec(host, "ip", args);
  if (code !== 0) throw new Error(`ip ${args.join(" ")} on ${host}: ${stderr}`);
}
