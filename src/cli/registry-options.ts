/** How the registry is reached, for every command that talks to one: its address, and what proves that it is the one. */
import type { Command } from "commander";
import type { RegistrySecurity } from "../daemon/up-options.ts";
import { type Checked, parseFingerprint } from "./parse-options.ts";
import { usageProblem } from "./refusal.ts";

export function declareRegistryOptions(command: Command): Command {
  return command
    .option("--registry <HOST:PORT>", "the overlay's registry (TCP)")
    .option("--registry-tls", "TLS to the registry, with a certificate that this system's authorities vouch for")
    .option("--registry-fingerprint <HEX>", "TLS to the registry, with the certificate of this SHA-256 fingerprint");
}

export function parseRegistrySecurity(raw: Readonly<Record<string, unknown>>, checked: Checked): RegistrySecurity {
  const { registryTls, registryFingerprint } = raw;
  if (registryFingerprint === undefined) return registryTls === true ? { kind: "authorities" } : { kind: "plain" };
  if (registryTls === true) {
    const hint = "Give --registry-fingerprint for one certificate, or --registry-tls for the system's authorities.";
    const problem = usageProblem("--registry-fingerprint excludes --registry-tls", hint);
    return checked.take<RegistrySecurity>({ problem }, { kind: "plain" });
  }
  const fingerprint = checked.take(parseFingerprint("--registry-fingerprint", registryFingerprint), "");
  return { kind: "pinned", fingerprint };
}
