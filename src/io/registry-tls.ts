/**
 * TLS under the registry's conversation (pilot protocol §6.5): the same port and framing inside. Either the certificate
 * is the one whose fingerprint was pinned, and neither its name nor its chain is looked at, or this system's authorities
 * vouch for the name. Not a byte of the conversation leaves before that is decided.
 */
import { isIP } from "node:net";
import { type TLSSocket, connect as tlsConnect } from "node:tls";
import type { OpeningStream, RegistryAddress } from "./registry-connection.ts";
import { fingerprintOf, trustedAuthorities } from "./tls-certificate.ts";

/** As in the daemon's options. */
export type RegistrySecurity =
  | { readonly kind: "plain" }
  | { readonly kind: "authorities" }
  | { readonly kind: "pinned"; readonly fingerprint: string };

/** What opens a connection so; undefined for plain TCP. */
export function secureConnector(security: RegistrySecurity): ((address: RegistryAddress) => OpeningStream) | undefined {
  switch (security.kind) {
    case "plain":
      return undefined;
    case "authorities":
      return (address) => ({
        socket: tlsConnect({ ...common(address), ca: trustedAuthorities() }),
        opened: "secureConnect",
      });
    case "pinned":
      return (address) => {
        const socket = tlsConnect({ ...common(address), rejectUnauthorized: false });
        socket.once("secureConnect", () => checkPin(socket, security.fingerprint));
        return { socket, opened: "verified" };
      };
  }
}

function common({ host, port }: RegistryAddress) {
  return { host, port, minVersion: "TLSv1.2" as const, ...(isIP(host) === 0 ? { servername: host } : {}) };
}

/** Says `verified` for the pinned certificate, and ends the connection with the reason for any other. */
function checkPin(socket: TLSSocket, pinned: string): void {
  const certificate = socket.getPeerX509Certificate();
  const shown = certificate === undefined ? "none" : fingerprintOf(certificate);
  if (shown === pinned) socket.emit("verified");
  else socket.destroy(new Error(`the registry's certificate has the fingerprint ${shown}, not the pinned ${pinned}`));
}
