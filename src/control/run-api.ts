/**
 * The part of the local API that is about programs with nothing but the overlay. `run` keeps ports for one; a connection to
 * the same socket that is upgraded to RUN_PROTOCOL (`GET /v1/run?first=PORT`) then carries its packets both ways, each as
 * `length 4 | virtio_net_hdr 10 | IPv6 packet`, and gives the ports back when it ends.
 */
import { PilotError } from "../base/pilot-error.ts";

export interface RunMethods {
  run: { request: RunRequest; reply: RunReply };
}

export interface RunBackend {
  prepare(request: RunRequest, signal: AbortSignal): Promise<RunReply>;
}

export interface RunRequest {
  /** Whose the program is; the caller's when absent, and another's only for root. */
  readonly uid?: number;
}

export interface RunReply {
  /** Name of the interface outside, and of the one inside. */
  readonly interface: string;
  /** This node's addresses: that of network 0 and one for each network it is in. */
  readonly addresses: readonly string[];
  /** What of the world there is inside: `fd50:494c:4f54::/48`. */
  readonly prefix: string;
  readonly mtu: number;
  /** Where names are answered; null when nobody answers them. */
  readonly dns: string | null;
  /** The program's ports, both ends included; kept for it for RUN_PATIENCE_MS until it connects. */
  readonly ports: { readonly first: number; readonly last: number };
}

export const RUN_PROTOCOL = "pilot-tun-packets";
export const RUN_PATIENCE_MS = 10_000;

/** What an upgraded connection asks for. */
export interface CarryRequest {
  /** The first of the ports that were kept; those of before when the daemon is another by now. */
  readonly first: number;
  readonly uid: number | undefined;
}

/** Throws PilotError `bad_request`. */
export function parseCarryRequest(url: string): CarryRequest {
  const { pathname, searchParams } = new URL(url, "http://pilot");
  const first = wholeIn(searchParams, "first", 65_535);
  const uid = wholeIn(searchParams, "uid", 0xfffffffe);
  if (pathname === "/v1/run" && first !== undefined && first > 0) return { first, uid };
  throw new PilotError(
    "bad_request",
    "Packets are carried at /v1/run?first=PORT",
    "Start the program with pilot-tun run.",
  );
}

function wholeIn(parameters: URLSearchParams, name: string, most: number): number | undefined {
  const text = parameters.get(name);
  if (text === null) return undefined;
  const value = /^\d{1,10}$/.test(text) ? Number(text) : most + 1;
  if (value <= most) return value;
  throw new PilotError("bad_request", `The ${name} must be a whole number up to ${most}`, "Use pilot-tun run.");
}
