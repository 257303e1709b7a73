/**
 * Approve or deny what was shown, and nothing else: a peer may have asked anew since, for more. So the answer carries the
 * request as the page showed it; it must be the one that waits, and its own limits go along, which an approval never exceeds.
 */
import { PilotError } from "../base/pilot-error.ts";
import type { ControlClient } from "../control/client.ts";
import type { TrustChangeReply, TrustRequest } from "../control/trust-api.ts";
import type { ShownRequest } from "./view.ts";

/** Throws PilotError `bad_request`, `request_changed`, or what the daemon answers. */
export async function answerRequest(
  client: Pick<ControlClient, "call">,
  method: "trust/approve" | "trust/deny",
  body: unknown,
): Promise<TrustChangeReply> {
  const shown = parseShown(body);
  const { requests } = await client.call("trust/pending", {}, CALL);
  const waiting = requests.find(({ node }) => node === shown.node);
  if (waiting === undefined || textOf(waiting) !== textOf(shown)) {
    throw new PilotError(
      "request_changed",
      waiting === undefined ? "This request no longer waits" : "The peer asks for something else now",
      "Look at the page anew, and decide again.",
    );
  }
  const peer = String(waiting.node);
  if (method === "trust/deny") return await client.call(method, { peer }, CALL);
  const { ports, forS, maxBytes } = waiting;
  const terms = {
    ...(ports === null ? {} : { ports: ports.join(",") }),
    ...(forS === null ? {} : { forMs: forS * 1000 }),
    ...(maxBytes === null ? {} : { maxBytes }),
  };
  return await client.call(method, { peer, ...terms }, CALL);
}

function parseShown(body: unknown): ShownRequest {
  const keys = typeof body === "object" && body !== null && !Array.isArray(body) ? Object.keys(body).sort() : [];
  const shown = body as ShownRequest;
  if (keys.join() === SHOWN_KEYS.join() && Number.isSafeInteger(shown.node)) return shown;
  throw new PilotError(
    "bad_request",
    `The body must be an object of ${SHOWN_KEYS.join(", ")}`,
    "Send the request as /api/live showed it.",
  );
}

const SHOWN_KEYS = ["fingerprint", "forS", "maxBytes", "node", "ports", "reason"];

function textOf({ node, fingerprint, reason, ports, forS, maxBytes }: ShownRequest | TrustRequest): string {
  return JSON.stringify([node, fingerprint, reason, ports, forS, maxBytes]);
}

const CALL = { timeoutMs: 10_000 };
