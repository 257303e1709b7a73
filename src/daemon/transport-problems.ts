/** What an operator is told about networks that block something: what was found, and what was done about it. */
import type { Problem } from "../control/api.ts";

export interface TransportFacts {
  readonly udpBlocked: boolean;
  /** Where the beacon is expected on UDP, `host:port`. */
  readonly beacon: string;
  /** Undefined: the operator wants no way around. */
  readonly compat: { readonly url: string; readonly isOpen: boolean; readonly error: string | undefined } | undefined;
  readonly registry: { readonly isDown: boolean; readonly address: string; readonly error: string | null };
}

export function transportProblems(facts: TransportFacts): Problem[] {
  return [udpProblem(facts), registryProblem(facts)].flatMap((problem) => problem ?? []);
}

function udpProblem({ udpBlocked, beacon, compat }: TransportFacts): Problem | undefined {
  if (!udpBlocked) return undefined;
  const found = `UDP to the beacon ${beacon} does not get through`;
  if (compat === undefined) {
    return {
      code: "udp_blocked",
      message: `${found}, and --no-compat forbids the way around`,
      hint: "Let UDP out to that address, or start without --no-compat; with pilot-tun netcheck you see what works.",
    };
  }
  if (compat.isOpen) {
    return {
      code: "udp_blocked",
      message: `${found}; everything goes through the relay over TLS (${compat.url}) until it does`,
      hint: "Nothing needs to be done; letting UDP out makes it faster.",
    };
  }
  const why = compat.error === undefined ? "it is being tried" : `it failed: ${compat.error}`;
  return {
    code: "udp_blocked",
    message: `${found}; the way around is ${compat.url}, and ${why}`,
    hint: "If the beacon is up: let UDP out, or TCP to that URL (HTTPS_PROXY is honoured); see pilot-tun netcheck.",
  };
}

function registryProblem({ compat, registry }: TransportFacts): Problem | undefined {
  if (!registry.isDown || compat?.isOpen !== true) return undefined;
  return {
    code: "registry_port_blocked",
    message: `The beacon is reached at ${compat.url}, but the registry at ${registry.address} is not (${registry.error ?? "no answer"})`,
    hint: "This network seems to let only some TCP ports out: known peers are reached, new ones cannot be looked up. Let that port out, or have the registry listen on one that is open.",
  };
}
