/**
 * How a node shows the beacon that it owns its number: it signs a cookie with the key that the registry has for that
 * number. The cookie depends on the number and on the source it was sent to, so that a proof overheard on the way is
 * worth nothing from another source; the beacon keeps no state for it. The cheap tests come first: only a source that
 * received a cookie of ours costs the check of a signature.
 */
import { equalBytes, equalSecrets, utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import { type Endpoint, formatEndpoint } from "../base/endpoint.ts";
import type { Instant } from "../base/instant.ts";
import { beaconProofText, PROOF_COOKIE_BYTES, type ProofClaim } from "../wire/beacon.ts";
import type { NodeId } from "../wire/ids.ts";

export interface NodeProofParts {
  readonly crypto: Crypto;
  /** Which rendezvous this is: its registry told the nodes the same. */
  readonly rendezvous: string;
  /** The key registered for a number. */
  keyOf(node: NodeId): Uint8Array | undefined;
}

export type ProofVerdict = "proven" | "unsigned" | "stale-cookie" | "wrong-key" | "bad-signature";

export class NodeProofs {
  readonly #parts: NodeProofParts;
  readonly #secret: Uint8Array;

  constructor(parts: NodeProofParts) {
    this.#parts = parts;
    this.#secret = parts.crypto.randomBytes(32);
  }

  check(node: NodeId, claim: ProofClaim, source: Endpoint, now: Instant): ProofVerdict {
    const registered = this.#parts.keyOf(node);
    if (registered === undefined || !equalBytes(registered, claim.publicKey)) return "wrong-key";
    if (claim.signature === undefined) return "unsigned";
    const period = periodOf(now);
    const isOurs = [period, period - 1].some((at) => equalSecrets(this.#cookie(node, source, at), claim.cookie));
    if (!isOurs) return "stale-cookie";
    const text = utf8(beaconProofText(node, this.#parts.rendezvous, claim.cookie));
    return this.#parts.crypto.ed25519Verify(registered, text, claim.signature) ? "proven" : "bad-signature";
  }

  /** What the node at `source` shall sign; good for one to two periods. */
  cookie(node: NodeId, source: Endpoint, now: Instant): Uint8Array {
    return this.#cookie(node, source, periodOf(now));
  }

  #cookie(node: NodeId, source: Endpoint, period: number): Uint8Array {
    const info = utf8(`beacon cookie ${period} ${node} ${formatEndpoint(source)}`);
    return this.#parts.crypto.hkdfSha256(this.#secret, info, PROOF_COOKIE_BYTES);
  }
}

function periodOf(now: Instant): number {
  return Math.floor(now / COOKIE_PERIOD_MS);
}

const COOKIE_PERIOD_MS = 60_000;
