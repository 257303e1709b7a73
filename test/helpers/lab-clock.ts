/**
 * The wall clock of one program, to be set while it runs: libfaketime reads the offset anew at each look. The monotonic
 * clock stays true. So a machine that slept can be played: a stopped program that goes on at another time of day, while
 * its monotonic clock stood still.
 */
import { renameSync, writeFileSync } from "node:fs";

export class LabClock {
  readonly #file: string;

  /** `file` is where the offset stands, in a folder of the lab. */
  constructor(file: string) {
    this.#file = file;
    this.set(0);
  }

  /** For the program that is to live by this clock. */
  get env(): Readonly<Record<string, string>> {
    return {
      LD_PRELOAD: LIBRARY,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: "1",
      DONT_FAKE_MONOTONIC: "1",
      NO_FAKE_STAT: "1",
    };
  }

  /** Seconds ahead of the true time from now on, negative for behind. */
  set(offsetS: number): void {
    writeFileSync(`${this.#file}.new`, `${offsetS < 0 ? "" : "+"}${offsetS}\n`);
    renameSync(`${this.#file}.new`, this.#file);
  }
}

/** Where Debian has it; the loader puts the architecture in the place of $LIB. */
const LIBRARY = "/usr/$LIB/faketime/libfaketime.so.1";
