/** Limits of trust, as options of the commands about it and as words in their answers. */
import type { Command } from "commander";
import type { LeaseStatus } from "../control/api.ts";
import type { LeaseTerms } from "../control/trust-api.ts";
import { MAX_LEASE_BYTES, MAX_LEASE_MS } from "../wire/ask-text.ts";
import { parseServices } from "../wire/services.ts";
import { bytes, duration } from "./format.ts";
import { UsageError, usageProblem } from "./refusal.ts";
import { parseSize, parseSpan } from "./span.ts";

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

/** `it may reach tcp/443 here, you nothing there, 1 h 59 min, 48 MiB left`. */
export function leaseWords({ inward, outward, endsInS, leftBytes, endedBy }: LeaseStatus): string {
  const words = [`in ${services(inward)}`, `out ${services(outward)}`];
  if (endedBy !== null) return [...words, endedBy === "time" ? "time is over" : "bytes are used up"].join(", ");
  if (endsInS !== null) words.push(`${duration(endsInS)} left`);
  if (leftBytes !== null) words.push(`${bytes(leftBytes)} left`);
  return words.join(", ");
}

/** What a request asks for: `tcp/443, 2 h, 48 MiB`. */
export function termsWords(ports: readonly string[] | null, forS: number | null, maxBytes: number | null): string {
  const words = [services(ports)];
  if (forS !== null) words.push(duration(forS));
  if (maxBytes !== null) words.push(bytes(maxBytes));
  return words.join(", ");
}

function services(list: readonly string[] | null): string {
  if (list === null) return "any";
  return list.length === 0 ? "nothing" : list.join(" ");
}
