/** What an operator reads when the registry names another key for a peer than the one that was pinned. */
import { toBase64 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { Problem } from "../base/error-code.ts";
import type { TrustRecord } from "../trust/trust-record.ts";

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
