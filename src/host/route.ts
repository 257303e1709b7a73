/** Which way this machine would send a packet, by its own routing table. */
import { runCommand } from "./command.ts";

export interface Route {
  /** Undefined: there is no way. */
  readonly device: string | undefined;
  /** The address that programs send from unless they choose one. */
  readonly source: string | undefined;
}

/** Undefined when it could not be asked. */
export async function routeTo(address: string): Promise<Route | undefined> {
  const { status, stdout } = await runCommand("ip", ["-6", "-o", "route", "get", address]);
  if (status === undefined) return undefined;
  const isRefused = status !== 0 || /^(?:unreachable|prohibit|blackhole|throw)\b/.test(stdout);
  return {
    device: isRefused ? undefined : / dev (\S+)/.exec(stdout)?.[1],
    source: isRefused ? undefined : / src (\S+)/.exec(stdout)?.[1],
  };
}
