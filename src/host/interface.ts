/**
 * What this machine must know of the interface: address, MTU, route, link up. `apply` states the whole wish and may be
 * called again; nothing outside the interface and the overlay prefix is touched. The TUN device is not persistent, so
 * the kernel takes the device, its addresses and its routes away when the daemon ends, however it ends.
 */
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { PilotError } from "../base/pilot-error.ts";
import { runCommand } from "./command.ts";

export interface InterfaceConfig {
  readonly name: string;
  readonly mtuBytes: number;
  /** Overlay addresses of this node, textual, without length. */
  readonly addresses: readonly string[];
  /** The overlay prefix, `fd50:494c:4f54::/48`. */
  readonly prefix: string;
}

export async function applyInterface(config: InterfaceConfig): Promise<void> {
  await enableIpv6(config.name);
  // No link-local address: nothing on this link speaks neighbour discovery, and its probes would only be noise.
  await ip(["link", "set", "dev", config.name, "addrgenmode", "none"], "optional");
  await ip(["link", "set", "dev", config.name, "mtu", String(config.mtuBytes), "up"]);
  const present = await presentAddresses(config.name);
  for (const address of config.addresses) {
    // No duplicate address detection: the address is usable at once, so services can bind to it.
    if (!present.has(address)) await ip(["-6", "addr", "add", `${address}/128`, "dev", config.name, "nodad"]);
  }
  for (const address of present) {
    if (!config.addresses.includes(address)) await ip(["-6", "addr", "del", `${address}/128`, "dev", config.name]);
  }
  await ip(["-6", "route", "replace", config.prefix, "dev", config.name, "metric", "256"]);
}

export interface InterfaceState {
  readonly isUp: boolean;
  /** Textual, without length, as the kernel writes them; none while it is down. */
  readonly addresses: readonly string[];
}

/** Undefined when there is no such interface, or it cannot be asked about. */
export function interfaceState(name: string): InterfaceState | undefined {
  try {
    const isUp = (Number(readFileSync(`/sys/class/net/${name}/flags`, "latin1")) & IFF_UP) !== 0;
    return { isUp, addresses: (networkInterfaces()[name] ?? []).map(({ address }) => address) };
  } catch {
    return undefined;
  }
}

async function presentAddresses(name: string): Promise<Set<string>> {
  const outcome = await runCommand("ip", ["-6", "-o", "addr", "show", "dev", name, "scope", "global"]);
  return new Set([...outcome.stdout.matchAll(/inet6 ([0-9a-f:]+)\//g)].map((match) => match[1]!));
}

/** A host with IPv6 switched off still carries it on our own interface, if the kernel lets us say so. */
async function enableIpv6(name: string): Promise<void> {
  const key = `net.ipv6.conf.${name.replaceAll(".", "/")}.disable_ipv6`;
  await runCommand("sysctl", ["-q", "-w", `${key}=0`]);
}

async function ip(args: readonly string[], need: "required" | "optional" = "required"): Promise<void> {
  const outcome = await runCommand("ip", args);
  if (outcome.status === 0 || need === "optional") return;
  if (outcome.status === undefined) {
    throw new PilotError("ip_missing", `Cannot run ip: ${outcome.stderr.trim()}`, "Install iproute2.");
  }
  throw new PilotError(
    "interface_refused",
    `ip ${args.join(" ")} failed: ${outcome.stderr.trim()}`,
    "Check that IPv6 is available (sysctl net.ipv6.conf.all.disable_ipv6) and that the daemon has CAP_NET_ADMIN.",
  );
}

const IFF_UP = 1;
