/** A program that measures: what it says while it works, and the lab it works in, which is taken down however it ends. */
import { Lab, type LabOptions } from "../helpers/lab.ts";

export class BenchProgram {
  readonly #name: string;
  /** To be taken down when the run is broken off. */
  #lab: Lab | undefined;

  /** `name`: that of the script. */
  constructor(name: string) {
    this.#name = name;
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => {
        void (this.#lab?.close() ?? Promise.resolve()).finally(() => process.exit(130));
      });
    }
  }

  /** On stderr: stdout has the result alone. */
  say(line: string): void {
    process.stderr.write(`${this.#name}: ${line}\n`);
  }

  /** Says what went wrong, if anything, and lets the program end with 1 then. */
  async run(act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.say(error instanceof Error ? error.message : String(error));
      process.exitCode = 1;
    }
  }

  /** One lab at a time. */
  async inLab<T>(options: LabOptions, act: (lab: Lab) => Promise<T>): Promise<T> {
    const lab = await Lab.create(this.#name.replaceAll("-", ""), options);
    this.#lab = lab;
    try {
      return await act(lab);
    } finally {
      await lab.close();
      this.#lab = undefined;
    }
  }
}
