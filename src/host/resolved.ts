/**
 * systemd-resolved is told that names under `pilot` and the overlay's reverse zone are answered at our address, for our link
 * alone: no other name of the host is asked there, and no file of the host is edited. Without resolved nothing is done.
 */
import { statSync } from "node:fs";
import { runCommand } from "./command.ts";

export interface LinkNames {
  readonly interface: string;
  /** Where DNS is spoken. */
  readonly server: string;
  /** Domains answered there, without the `~`. */
  readonly domains: readonly string[];
}

/** `absent`: this host has no resolved that runs. */
export type ResolvedState = "absent" | "applied" | { readonly refused: string };

export async function applyToResolved({ interface: link, server, domains }: LinkNames): Promise<ResolvedState> {
  if (resolvedInstance() === undefined) return "absent";
  const steps = [
    ["dns", link, server],
    ["domain", link, ...domains.map((domain) => `~${domain}`)],
    ["default-route", link, "no"],
    // Nobody signs `.pilot`, and nobody else on this link is to be asked.
    ["dnssec", link, "no"],
    ["llmnr", link, "no"],
    ["mdns", link, "no"],
  ];
  for (const words of steps) {
    const { status, stderr } = await runCommand("resolvectl", words);
    if (status !== 0) return { refused: `resolvectl ${words.join(" ")}: ${stderr.trim()}` };
  }
  return "applied";
}

/** Another value after resolved was started anew, which forgets what it was told; undefined while it does not run. */
export function resolvedInstance(): string | undefined {
  const stats = statSync(RESOLVED_SOCKET, { throwIfNoEntry: false });
  return stats === undefined ? undefined : `${stats.dev}:${stats.ino}:${stats.ctimeMs}`;
}

const RESOLVED_SOCKET = "/run/systemd/resolve/io.systemd.Resolve";
