/** Asks at the terminal for what must not be seen there, nor in arguments or the environment. */
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { PilotError } from "../base/pilot-error.ts";

/** Undefined without a terminal. Throws PilotError `interrupted`. */
export async function askSecret(question: string): Promise<string | undefined> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY || !stderr.isTTY) return undefined;
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: stdin, output: nowhere, terminal: true });
  stderr.write(question); // from now on the terminal shows nothing of what is typed
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once("line", resolve);
      const broken = (): void => reject(new PilotError("interrupted", "Interrupted", "Run the command again."));
      lines.once("SIGINT", broken);
      lines.once("close", broken);
    });
  } finally {
    lines.close();
    stderr.write("\n");
  }
}
