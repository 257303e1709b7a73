/**
 * `pilot-tun bugreport`: what somebody who helps wants to see, as one JSON object. Keys are never in it; with --redact names
 * and addresses of others are replaced, each by the same stand-in throughout, so that what belongs together still does.
 */
import { isIPv6 } from "node:net";
import { release } from "node:os";
import { PilotError } from "../base/pilot-error.ts";
import { type ControlMethod, EXIT, type ExitCode, type RequestOf, SCHEMA } from "../control/api.ts";
import { VERSION } from "../control/version.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";

export const declareBugreport: Declare = (program, perform) => {
  program
    .command("bugreport")
    .description("what somebody who helps wants to see, as JSON; never a key or a packet")
    .option("--redact", "replace names, nodes and addresses, the same one by the same word")
    .addHelpText("after", examples("pilot-tun bugreport --redact > report.json"))
    .action(perform(bugreport));
};

async function bugreport(context: Context, { options }: Input): Promise<ExitCode> {
  const report = {
    schema: SCHEMA,
    ...{ version: VERSION, node: process.version, kernel: release(), architecture: process.arch },
    status: await asked(context, "status", {}),
    config: await asked(context, "config/show", {}),
    policy: await asked(context, "policy/show", {}),
    flows: await asked(context, "flows", {}),
    networks: await asked(context, "network/ls", {}),
    netcheck: await asked(context, "netcheck", {}),
  };
  const text = JSON.stringify(report, null, 2);
  context.environment.stdout(`${options.redact === true ? redact(text) : text}\n`);
  return EXIT.ok;
}

/** What a daemon that does not run, or does not answer this, says instead is part of the report. */
async function asked<M extends ControlMethod>(context: Context, method: M, request: RequestOf<M>): Promise<unknown> {
  try {
    return await context.call(method, request);
  } catch (error) {
    if (!(error instanceof PilotError)) throw error;
    return { error: { code: error.code, message: error.message } };
  }
}

/** Public for tests. */
export function redact(text: string): string {
  const standIns = new Map<string, string>();
  const standIn = (kind: string, original: string): string => {
    const known = standIns.get(`${kind} ${original}`);
    if (known !== undefined) return known;
    const word = `${kind}-${[...standIns.keys()].filter((key) => key.startsWith(`${kind} `)).length + 1}`;
    standIns.set(`${kind} ${original}`, word);
    return word;
  };
  let redacted = text;
  // Names first, wherever they stand; then everything that has the form of an address or a key.
  for (const name of namesIn(text)) redacted = replaceWord(redacted, name, standIn("name", name));
  return redacted
    .replace(/\b[0-9A-Fa-f]{1,4}:[0-9A-F]{4}\.[0-9A-F]{4}\.[0-9A-F]{4}\b/g, (found) => standIn("pilot", found))
    .replace(/(?<![\w.:])[0-9a-f:]+(?!\w)/gi, (found) =>
      isIPv6(found) && found !== "::" ? standIn("ip6", found) : found,
    )
    .replace(IPV4, (found) => (found.startsWith("127.") ? found : standIn("ip4", found)))
    .replace(/"node": (\d+)/g, (_, node: string) => `"node": "${standIn("node", node)}"`)
    .replace(PUBLIC_KEY, (_, key: string) => `"publicKey": "${standIn("key", key)}"`)
    .replace(KEY, (found) => standIn("key", found))
    .replace(HASH, (found) => standIn("hash", found));
}

/** Host names, reasons and network names as the replies carry them, and the hosts of servers. */
function namesIn(text: string): string[] {
  const values = [...text.matchAll(/"(?:hostname|name)": "([^"]+)"/g)].map((match) => match[1]!);
  const servers = [...text.matchAll(/"(?:address|value)": "([a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z][a-z0-9-]*):\d+"/gi)].map(
    (match) => match[1]!,
  );
  return [...new Set([...values, ...servers])].sort((a, b) => b.length - a.length);
}

function replaceWord(text: string, word: string, by: string): string {
  const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return text.replace(new RegExp(`(?<![\\w-])${escaped}(?![\\w-])`, "g"), by);
}

const IPV4 = /\b\d{1,3}(?:\.\d{1,3}){3}\b/g;
const PUBLIC_KEY = /"publicKey": "([^"]*)"/g;
/** 32 bytes in base64, and in hex. */
const KEY = /\b[A-Za-z0-9+/]{43}=?(?![A-Za-z0-9+/=])/g;
const HASH = /\b[0-9a-f]{64}\b/g;
