/** How a peer is named in records: by every name that somebody may look for later, and the key that it had then. */
import { clip, type Fields } from "../audit/record.ts";
import { toBase64 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import type { TrustRecord } from "../trust/trust-record.ts";
import { formatOverlayAddress, formatPilotAddress, type OverlayPrefix } from "../wire/address.ts";
import { type NodeId, networkId } from "../wire/ids.ts";

export class PeerLabels {
  readonly #crypto: Pick<Crypto, "sha256">;
  readonly #prefix: OverlayPrefix;
  /** An entry lives as long as the key that it is made of. */
  readonly #fingerprints = new WeakMap<Uint8Array, string>();

  constructor(crypto: Pick<Crypto, "sha256">, prefix: OverlayPrefix) {
    this.#crypto = crypto;
    this.#prefix = prefix;
  }

  /** `network`: the one of its addresses that is meant. */
  of(node: NodeId, record: TrustRecord | undefined, network = networkId(0)): Fields {
    const address = { network, node };
    return {
      node,
      pilot: formatPilotAddress(address),
      address: formatOverlayAddress(this.#prefix, address),
      name: record?.hostname === undefined ? null : clip(record.hostname),
      key: this.fingerprintOf(record?.publicKey),
    };
  }

  fingerprintOf(key: Uint8Array | undefined): string | null {
    if (key === undefined) return null;
    const known = this.#fingerprints.get(key);
    if (known !== undefined) return known;
    const fingerprint = `SHA256:${toBase64(this.#crypto.sha256(key)).replace(/=+$/, "")}`;
    this.#fingerprints.set(key, fingerprint);
    return fingerprint;
  }
}
