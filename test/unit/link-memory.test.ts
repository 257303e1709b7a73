/** What a peer takes that is configured and not talked to: "ten thousand peers in 150 MB" is a matter of a few kilobytes each. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import type { Crypto } from "../../src/base/crypto.ts";
import { instant } from "../../src/base/instant.ts";
import type { DataPlane } from "../../src/tunnel/data-plane.ts";
import { LinkTable } from "../../src/tunnel/link-table.ts";
import { REKEY_LIMITS } from "../../src/tunnel/rekeying.ts";
import { nodeId } from "../../src/wire/ids.ts";

const PEERS = 4_000;
/** Measured: 2,000 to 2,200. With all that a link may ever need made at once there were 5,000. */
const MOST_BYTES = 2_900;
const DAY_MS = 86_400_000;

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

it("takes little before it is called, and no more when nobody answered", () => {
  const links = table();
  const keys = Array.from({ length: PEERS }, () => new Uint8Array(32));
  const before = usedBytes();
  for (let i = 0; i < PEERS; i++) {
    const link = links.open(nodeId(i + 2), keys[i]!);
    link?.suggestEndpoint({ address: "192.0.2.1", port: 1_000 + i }, "cached", instant(0));
  }
  expect((usedBytes() - before) / PEERS).toBeLessThan(MOST_BYTES);
  let sent = 0;
  for (const link of links.links()) link.connect(instant(0));
  links.handleTimeout(instant(DAY_MS));
  for (let now = DAY_MS; links.pollTimeout() !== undefined; now += DAY_MS) {
    links.handleTimeout(instant(now));
    while (links.pollTransmit() !== undefined) sent++;
    while (links.pollEvent() !== undefined);
  }
  expect(sent).toBeGreaterThanOrEqual(5 * PEERS);
  expect((usedBytes() - before) / PEERS).toBeLessThan(MOST_BYTES);
  expect(links.get(nodeId(2))?.isUp).toBe(false);
});

function usedBytes(): number {
  collect();
  collect(); // what the first found to be gone may have held more
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

function table(): LinkTable {
  const publicKey = new Uint8Array(32);
  return new LinkTable({
    crypto: FAST,
    dataPlane: { setEndpoint: () => undefined } as Partial<DataPlane> as DataPlane,
    local: { node: nodeId(1), seed: new Uint8Array(32), publicKey },
    allowLegacyKeys: false,
    relayOnly: false,
    relay: () => undefined,
    relayKind: () => "relay",
    rekey: REKEY_LIMITS,
    mustAgree: () => false,
    wantsKeepalive: () => false,
  });
}

const of = (length: number) => () => new Uint8Array(length);
const FAST = {
  sha256: of(32),
  hkdfSha256: of(32),
  x25519KeyPair: () => ({ privateKey: new Uint8Array(32), publicKey: new Uint8Array(32) }),
  x25519: of(32),
  x25519OfSeed: of(32),
  x25519OfIdentity: of(32),
  ed25519Sign: of(64),
} as Partial<Crypto> as Crypto;
