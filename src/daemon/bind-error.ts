/** What it means that a socket of the rendezvous could not be bound, and what to do. */
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import { PilotError } from "../base/pilot-error.ts";

export function bindError(what: string, protocol: string, endpoint: Endpoint, cause: unknown): PilotError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const where = `${formatEndpoint(endpoint)} (${protocol})`;
  if (code === "EADDRINUSE") {
    const hint = `Stop the program that uses it (ss -lptun 'sport = :${endpoint.port}'), or choose another --${what}.`;
    return new PilotError("port_taken", `The ${what}'s address ${where} is in use`, hint, cause);
  }
  if (code === "EACCES") {
    const hint = "Choose a port above 1023, or grant CAP_NET_BIND_SERVICE.";
    return new PilotError("port_forbidden", `This user may not bind the ${what}'s address ${where}`, hint, cause);
  }
  const hint = `Give --${what} an address of this machine, or 0.0.0.0 or [::] for all of them.`;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PilotError("address_unusable", `Cannot bind the ${what}'s address ${where}: ${reason}`, hint, cause);
}
