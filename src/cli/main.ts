#!/usr/bin/env node
/** Entry of the command line: the real process as an Environment. */
import type { Environment } from "./context.ts";
import { run } from "./program.ts";
import { askSecret } from "./secret-prompt.ts";

let endsWithReader = true;

// A reader that has seen enough (`pilot-tun peers | head -1`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  if (endsWithReader) process.exit(0);
});
process.stderr.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

const environment: Environment = {
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  stdoutIsTerminal: process.stdout.isTTY === true,
  stderrIsTerminal: process.stderr.isTTY === true,
  colourWanted: !process.env.NO_COLOR && process.env.TERM !== "dumb",
  variables: process.env,
  onSignal: (signal, listener) => {
    process.on(signal, listener);
    return () => void process.off(signal, listener);
  },
  askSecret,
  become: (file, args, variables) => process.execve!(file, [...args], variables as NodeJS.ProcessEnv),
  exit: (code) => process.exit(code),
  outliveReader: () => {
    endsWithReader = false;
  },
};

const code = await run(process.argv.slice(2), environment);
// A pipe whose reader is slow takes no more than it holds; the rest waits in this process.
await new Promise((resolve) => process.stdout.write("", resolve));
process.exit(code);
