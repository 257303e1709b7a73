/** The address of a host named in the configuration; an address stands for itself. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";

/** Undefined when the name does not resolve. */
export async function resolveHost(host: string): Promise<string | undefined> {
  if (isIP(host) !== 0) return host;
  try {
    return (await lookup(host)).address;
  } catch {
    return undefined; // no such name, or no resolver: the caller works without
  }
}
