/** The one secret of a rendezvous's operator that requests carry. */
import { equalSecrets, utf8 } from "../base/bytes.ts";
import { MAX_TOKEN_CHARS, type RegistryMessage, textField } from "../wire/registry.ts";
import type { RequestContext } from "./request-context.ts";

/** Hashes are compared, so that the time it takes says nothing about the token, nor about its length; guesses are bounded. */
export function isAdmin(message: RegistryMessage, context: RequestContext): boolean {
  const given = textField(message, "admin_token", MAX_TOKEN_CHARS);
  if (given === undefined || given === "" || context.adminToken === undefined) return false;
  if (!context.tokenAttempts.take(context.conversation.sourceKey, context.now)) return false;
  return equalSecrets(context.crypto.sha256(utf8(given)), context.crypto.sha256(utf8(context.adminToken)));
}
