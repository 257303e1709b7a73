/** How many system calls the relay takes for what it forwards, counted in a process of its own. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { builtShim } from "./build-shim.ts";

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
/** As many frames as relay-load.ts sends, and how many the relay takes at once. */
const FRAMES = 320;
const BATCH = 32;
/** Registrations of the two nodes: a message in and one out for each. */
const ASIDE = 2;

let folder: string;
let counter: string;

beforeAll(() => {
  builtShim();
  folder = mkdtempSync(join(tmpdir(), "relay-calls-"));
  counter = join(folder, "count-calls.so");
  execFileSync("cc", ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", counter, here("count-calls.c"), "-ldl"]);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Calls on the beacon's port that moved something, and messages that they moved. */
function relayed(kind: "datagrams" | "runs"): Record<string, { calls: number; messages: number }> {
  const table = join(folder, kind);
  const env = { ...process.env, LD_PRELOAD: counter, COUNT_CALLS_TO: table };
  const said = execFileSync(process.execPath, [here("relay-load.ts"), kind], {
    encoding: "utf8",
    env,
    timeout: 30_000,
  });
  const { received, isInOrder, port } = JSON.parse(said);
  expect([received, isInOrder]).toEqual([FRAMES, true]);
  const lines = readFileSync(table, "utf8").trim().split("\n");
  const rows = lines.map((line) => line.split(" ")).filter((words) => Number(words[1]) === port);
  return Object.fromEntries(
    rows.map(([name, , calls, messages]) => [name, { calls: Number(calls), messages: Number(messages) }]),
  );
}

test("datagrams that wait are read and sent on thirty-two with one system call", () => {
  const { recvmmsg, sendmmsg, ...others } = relayed("datagrams");
  expect(others).toEqual({});
  expect([recvmmsg?.messages, sendmmsg?.messages]).toEqual([FRAMES + ASIDE, FRAMES + ASIDE]);
  expect(recvmmsg?.calls).toBeLessThanOrEqual(FRAMES / BATCH + ASIDE);
  expect(sendmmsg?.calls).toBeLessThanOrEqual(FRAMES / BATCH + ASIDE);
});

test("a run of frames is one message on its way in and one on its way out", () => {
  const { recvmmsg, sendmmsg, ...others } = relayed("runs");
  expect(others).toEqual({});
  expect([recvmmsg?.messages, sendmmsg?.messages]).toEqual([FRAMES / 40 + ASIDE, FRAMES / 40 + ASIDE]);
  expect(recvmmsg?.calls).toBeLessThanOrEqual(1 + ASIDE);
  expect(sendmmsg?.calls).toBeLessThanOrEqual(1 + ASIDE);
});
