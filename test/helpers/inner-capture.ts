/** What passes over the interface of a host, as tcpdump saw it: the witness of the tests of trust and policy. */
import type { Lab } from "./lab.ts";
import type { LabProcess } from "./lab-process.ts";

export interface SeenPacket {
  /** Seconds since 1970, by the clock of this machine: the same for all hosts of a lab. */
  readonly atS: number;
  /** The line of tcpdump. */
  readonly text: string;
}

export class InnerCapture {
  readonly #lab: Lab;
  readonly #host: string;
  readonly #file: string;
  readonly #process: LabProcess;

  /** `face`: another interface than the overlay's. */
  static async start(lab: Lab, host: string, face = "pilot0"): Promise<InnerCapture> {
    const file = `${lab.folder}/${host}-${face}-${performance.now()}.pcap`;
    const words = ["--immediate-mode", "-n", "-i", face, "-B", "16384", "-s", "128", "-U", "-w", file];
    const capture = new InnerCapture(lab, host, file, lab.spawn(host, "tcpdump", words));
    await capture.#process.waitForLine(/listening on/);
    return capture;
  }

  private constructor(lab: Lab, host: string, file: string, process: LabProcess) {
    this.#lab = lab;
    this.#host = host;
    this.#file = file;
    this.#process = process;
  }

  /** Ends the capture; what it saw is complete then. Throws when it lost packets: it would prove nothing. */
  async stop(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    this.#process.kill("SIGINT");
    await this.#process.waitForEnd(5_000);
    const lost = /(\d+) packets? dropped by kernel/.exec(this.#process.stderr)?.[1];
    if (lost !== "0") throw new Error(`the capture on ${this.#host} lost packets:\n${this.#process.stderr}`);
  }

  async packets(filter: string): Promise<SeenPacket[]> {
    const { code, stdout, stderr } = await this.#lab.exec(this.#host, "tcpdump", [
      "-n",
      "-tt",
      "-r",
      this.#file,
      filter,
    ]);
    if (code !== 0) throw new Error(stderr);
    return stdout
      .split("\n")
      .filter((line) => /^\d/.test(line)) // not the bytes of what tcpdump does not know
      .map((text) => ({ atS: Number(text.split(" ")[0]), text }));
  }
}

/** Pilot protocol's interface has no link header: the packet starts with IPv6. */
export const RESET = "(ip6[6] == 6 and ip6[53] & 4 != 0)";
/** ICMPv6 "destination unreachable, administratively prohibited". */
export const PROHIBITED = "(icmp6 and ip6[40] == 1 and ip6[41] == 1)";

const SETTLE_MS = 300;
