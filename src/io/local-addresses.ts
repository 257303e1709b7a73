/**
 * This machine's addresses on the underlay: what neighbours on the same network can reach it at, and whose change means
 * that it is somewhere else. Loopback, link-local and our own interface are left out.
 */
import { networkInterfaces } from "node:os";
import type { LocalAddress } from "../base/endpoint.ts";
import { formatIp, ipScope, parseIp } from "../wire/underlay-address.ts";

/** IPv4 first: it is what two hosts behind one NAT share most often. Throws the system's errors (out of descriptors). */
export function localAddresses(ownInterface: string): LocalAddress[] {
  const found: LocalAddress[] = [];
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (name === ownInterface) continue;
    for (const { address, cidr, internal } of addresses ?? []) {
      const bytes = parseIp(address);
      if (internal || bytes === undefined || cidr === null) continue;
      const scope = ipScope(bytes);
      if (scope !== "global" && scope !== "private") continue;
      found.push({ address: formatIp(bytes)!, prefixLength: Number(cidr.slice(cidr.lastIndexOf("/") + 1)) });
    }
  }
  return found.sort((a, b) => Number(a.address.includes(":")) - Number(b.address.includes(":")));
}
