/** What an operator reads of a peer that is not what it was. */
import { toBase64 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { Problem } from "../base/error-code.ts";
import type { TrustRecord } from "../trust/trust-record.ts";

/** The registry names another key than the one that was pinned. */
export function keyChangeProblem(record: TrustRecord, offered: Uint8Array, crypto: Crypto): Problem {
  const name = record.hostname ?? `node ${record.node}`;
  const fingerprint = toBase64(crypto.sha256(offered)).replace(/=+$/, "");
  return {
    code: "key_changed",
    message:
      `The registry names another key for ${name} than the one that was pinned; the pinned one stays. ` +
      `The other one is SHA256:${fingerprint}`,
    hint:
      `If that is what "pilot-tun id show" says on ${name}: ` +
      `pilot-tun trust revoke ${record.node}, then pilot-tun trust ask ${record.node}.`,
  };
}

/** The peer is there, but its sessions are weaker than they were. */
export function downgradeProblem(record: TrustRecord): Problem {
  const name = record.hostname ?? `node ${record.node}`;
  return {
    code: "session_downgraded",
    message:
      `${name} used to agree on keys of its own for every session, and does not any more; nothing passes between you. ` +
      "It runs other software than before, or somebody plays it with keys of an earlier session.",
    hint:
      `If ${name} was set back to an earlier version on purpose: ` +
      `pilot-tun trust revoke ${record.node}, then pilot-tun trust ask ${record.node}.`,
  };
}
