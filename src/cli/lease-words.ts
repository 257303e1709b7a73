/** Limits of trust, as options of the commands about it. */
import type { Command } from "commander";
import type { LeaseTerms } from "../control/trust-api.ts";
import { MAX_LEASE_BYTES, MAX_LEASE_MS } from "../wire/ask-text.ts";
import { parseServices } from "../wire/services.ts";
import { UsageError, usageProblem } from "./refusal.ts";
import { parseSize, parseSpan } from "./span.ts";

export { leaseWords, termsWords } from "../control/lease-words.ts";

export function addLeaseOptions(command: Command, whose: string): Command {
  return command
    .option("--ports <LIST>", `${whose}, and nothing the other way: tcp/443,udp/53,tcp/8000-8099,icmp`)
    .option("--for <TIME>", "for how long: 30m, 2h, 7d")
    .option("--max <SIZE>", "how many bytes, in both directions together: 500KB, 50MB, 2GB");
}

/** Throws UsageError. */
export function leaseTerms(options: Readonly<Record<string, unknown>>): LeaseTerms {
  return {
    ...(options.ports === undefined ? {} : { ports: parsePorts(options.ports) }),
    ...(options.for === undefined ? {} : { forMs: parseSpan("--for", options.for, MAX_LEASE_MS) }),
    ...(options.max === undefined ? {} : { maxBytes: parseSize("--max", options.max, MAX_LEASE_BYTES) }),
  };
}

function parsePorts(text: unknown): string {
  const list = String(text).replaceAll(" ", "");
  if (parseServices(list) !== undefined) return list;
  const message = `--ports ${JSON.stringify(list.slice(0, 80))} is not a list of ports`;
  throw new UsageError([
    usageProblem(message, "Write at most 16 of tcp/443, udp/53, tcp/8000-8099, tcp, icmp; with commas."),
  ]);
}
