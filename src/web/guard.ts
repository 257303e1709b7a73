/**
 * Who is answered at all. A web page of somebody else that the operator's browser shows can send requests here, and by a name
 * that it lets point at this machine (DNS rebinding) it could even read the answers; so the name a request was sent to, the
 * page it was sent by and a token are looked at before anything else. No cookies are set: nothing is sent by itself.
 *
 * Throws PilotError `wrong_host`, `wrong_origin`, `token_missing`, `token_wrong` or `read_only`.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { PilotError } from "../base/pilot-error.ts";
import type { Role } from "./view.ts";

/** Of any port: the page may be reached through a forwarded one (ssh -L). */
export function checkHost({ host }: IncomingHttpHeaders): void {
  if (host !== undefined && LOOPBACK_HOST.test(host)) return;
  throw new PilotError(
    "wrong_host",
    "The page answers to the names of this machine's loopback only",
    "Open it as http://127.0.0.1, http://[::1] or http://localhost with its port; from elsewhere with ssh -L.",
  );
}

const LOOPBACK_HOST = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i;

/** Of what gives or changes data; the page's own files may be asked for by a link from anywhere. */
export function checkOrigin({ host, origin, "sec-fetch-site": site }: IncomingHttpHeaders): void {
  const isOwn = origin === undefined || origin.toLowerCase() === `http://${host?.toLowerCase()}`;
  if (isOwn && (site === undefined || site === "same-origin" || site === "none")) return;
  throw new PilotError(
    "wrong_origin",
    "The request was sent by a page of another origin",
    "Only the page itself may ask; open it by the address that pilot-tun web printed.",
  );
}

export interface Tokens {
  readonly look: string;
  /** Undefined: nobody may change anything. */
  readonly change: string | undefined;
}

/** What the token in `Authorization: Bearer` may do. */
export function roleOf({ authorization }: IncomingHttpHeaders, tokens: Tokens): Role {
  const shown = /^Bearer ([A-Za-z0-9_-]{1,128})$/.exec(authorization ?? "")?.[1];
  if (shown === undefined) throw tokenError("token_missing", "The request has no token");
  // Both are compared, so that the time tells nothing about either.
  const mayChange = tokens.change !== undefined && isSame(shown, tokens.change);
  const mayLook = isSame(shown, tokens.look);
  if (mayChange) return "change";
  if (mayLook) return "look";
  throw tokenError("token_wrong", "The token is not one of this start of pilot-tun web");
}

export function checkMayChange(role: Role, tokens: Tokens): void {
  if (role === "change") return;
  const hint =
    tokens.change === undefined
      ? "Start pilot-tun web with --admin, and open the second address that it gives; or use pilot-tun trust."
      : "Open the address for changes that pilot-tun web gave when it was started.";
  throw new PilotError("read_only", "With this address one may look, and not answer", hint);
}

function tokenError(code: "token_missing" | "token_wrong", message: string): PilotError {
  return new PilotError(
    code,
    message,
    "Open the whole address that pilot-tun web gave when it was started, with its #.",
  );
}

/** Hashes are equally long, whatever was shown. */
function isSame(shown: string, expected: string): boolean {
  return timingSafeEqual(hashOf(shown), hashOf(expected));
}

function hashOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
