/**
 * Which endpoint a registration stores (pilot protocol §6.3). The generations differ: the older take the IP that the TCP
 * connection came from and the port that was claimed; the newest keeps a public IP that the client claims.
 *
 * We believe the connection whenever it came from a public address. A claimed one could name any victim on the internet,
 * and every peer that resolves the node would then send key exchanges and punches there; the source of a TCP connection
 * cannot be forged like that. Only when the connection itself came from a private, link-local or loopback address (the
 * node shares a machine, a LAN or a proxy with us, so we cannot see its public side) is a claimed public IP kept.
 */
import type { Endpoint } from "../base/endpoint.ts";
import { formatIp, ipScope, parseIp, splitHostPort } from "../wire/underlay-address.ts";

/** Undefined when the claim has no usable port: there is nowhere to send to. */
export function observedEndpoint(tcpSource: string, listenAddr: string): Endpoint | undefined {
  const claim = splitHostPort(listenAddr);
  const source = parseIp(tcpSource);
  if (claim === undefined || claim.port === 0 || source === undefined) return undefined;
  const claimed = parseIp(claim.host);
  const keepsClaim = claimed !== undefined && ipScope(claimed) === "global" && ipScope(source) !== "global";
  return { address: formatIp(keepsClaim ? claimed : source)!, port: claim.port };
}
