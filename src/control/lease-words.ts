/** Limits of trust as people read them. */
import { bytes, duration } from "../base/readable.ts";
import type { LeaseStatus } from "./api.ts";

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
