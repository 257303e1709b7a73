/**
 * `pilot-tun web`: the status page, served on loopback by a program of its own, with the rights of whoever starts it. The
 * addresses it gives end in a token; without one nothing is told, with the second one may approve and deny.
 */
import { randomBytes } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { type ExitCode, SCHEMA } from "../control/api.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { runForeground } from "./foreground.ts";
import { table } from "./format.ts";
import { Checked, parseLoopback, parsePath } from "./parse-options.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareWeb: Declare = (program, perform) => {
  program
    .command("web")
    .description("a live status page on this machine: peers, flows, refusals, requests; asks the daemon as who you are")
    .option("--listen <ADDRESS:PORT>", "where on loopback", "127.0.0.1:9587")
    .option("--admin", "give a second address, with which requests can be approved and denied")
    .option("--address-file <FILE>", "write the addresses into a file that only you may read, and do not print them")
    .addHelpText(
      "after",
      examples(
        "pilot-tun web",
        "pilot-tun web --admin --listen '[::1]:9600'",
        "pilot-tun web --address-file ~/.pilot-tun-page",
        "ssh -L 9587:127.0.0.1:9587 SERVER   # then open here what it printed there",
      ),
    )
    .action(perform(web));
};

async function web(context: Context, { options }: Input): Promise<ExitCode> {
  const checked = new Checked();
  const { host, port } = checked.take(parseLoopback("--listen", options.listen), { host: "", port: 0 });
  const file =
    options.addressFile === undefined ? undefined : checked.take(parsePath("--address-file", options.addressFile), "");
  checked.end();
  const tokens = { look: newToken(), change: options.admin === true ? newToken() : undefined };
  const { startWebServer } = await import("../web/server.ts");
  return await runForeground(
    context.environment,
    async () => {
      const server = await startWebServer({ host, port, tokens, control: context.options.control });
      const addresses = {
        look: `${server.url}#${tokens.look}`,
        change: tokens.change === undefined ? null : `${server.url}#${tokens.change}`,
      };
      if (file === undefined) return { close: () => server.close(), addresses };
      writePrivately(file, lines(addresses));
      const close = (): Promise<void> => {
        rmSync(file, { force: true });
        return server.close();
      };
      return { close, addresses: { look: server.url, change: null } };
    },
    ({ addresses }) => context.answer({ schema: SCHEMA, ...addresses }, () => lines(addresses)),
  );
}

interface Addresses {
  readonly look: string;
  readonly change: string | null;
}

function lines({ look, change }: Addresses): string[] {
  const rows = [["look", look], ...(change === null ? [] : [["approve and deny", change]])];
  return table(rows, (_colour, text) => text);
}

/** 192 bits. */
function newToken(): string {
  return randomBytes(24).toString("base64url");
}

/** A new file each time: one that is there may be readable by others, or lead elsewhere. */
function writePrivately(file: string, text: readonly string[]): void {
  try {
    rmSync(file, { force: true });
    writeFileSync(file, `${text.join("\n")}\n`, { mode: 0o600, flag: "wx" });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UsageError([usageProblem(`--address-file: ${reason}`, "Name a file in a folder that you may write to.")]);
  }
}
