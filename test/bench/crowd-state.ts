/** What a node and a rendezvous know of a crowd, written where they look for it. */
import { readFileSync, writeFileSync } from "node:fs";
import { toBase64 } from "../../src/base/bytes.ts";
import type { Crypto } from "../../src/base/crypto.ts";
import type { WallClock } from "../../src/base/instant.ts";
import { SqliteStore } from "../../src/io/sqlite-store.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

/** A crowd has the numbers from 1 on. */
export interface Crowd {
  readonly count: number;
  readonly address: string;
  readonly firstPort: number;
}

export function memberKey(crypto: Crypto, index: number): { seed: Uint8Array; publicKey: Uint8Array } {
  const seed = seededBytes(1_000 + index)(32);
  return { seed, publicKey: crypto.ed25519PublicKey(seed) };
}

/** Registers all of them, in an empty database. */
export function registerCrowd(crypto: Crypto, folder: string, { count, address, firstPort }: Crowd): void {
  const store = SqliteStore.open(folder);
  const at = Date.now() as WallClock;
  for (let index = 0; index < count; index++) {
    store.addNode({
      publicKey: memberKey(crypto, index).publicKey,
      hostname: `node-${index}`,
      endpoint: { address, port: firstPort + index },
      ...{ lanAddrs: [], isPublic: false, relayOnly: false, mustSign: false, taskExec: false, tags: [] },
      ...{ version: "bench", keySince: at, seenAt: at },
    });
  }
  store.close();
}

/** Lets the node resolve them all. */
export function pairWithCrowd(folder: string, node: number, { count }: Crowd): void {
  const store = SqliteStore.open(folder);
  for (let member = 1; member <= count; member++) {
    store.addConsent(nodeId(node), nodeId(member));
    store.addConsent(nodeId(member), nodeId(node));
  }
  store.close();
}

/** The node trusts them all and remembers where they were; it must not run. Call the result to take all that back. */
export function befriendCrowd(crypto: Crypto, stateDir: string, { count, address, firstPort }: Crowd): () => void {
  const [trustFile, nodeFile] = [`${stateDir}/trust.json`, `${stateDir}/node.json`];
  const [trust, node] = [readFileSync(trustFile, "utf8"), readFileSync(nodeFile, "utf8")];
  const [book, memory] = [JSON.parse(trust), JSON.parse(node)];
  const since = Date.now();
  for (let index = 0; index < count; index++) {
    book.records.push({
      node: index + 1,
      state: "mutual",
      public_key: toBase64(memberKey(crypto, index).publicKey),
      hostname: `node-${index}`,
      // They have spoken for it, as every peer has that there ever was a session with.
      ...{ epoch: 0, since, confirmed_since: since, ask_reason: "", request: null, revocation_untold: false },
    });
    memory.endpoints.push({ node: index + 1, address, port: firstPort + index });
  }
  writeFileSync(trustFile, JSON.stringify(book), { mode: 0o600 });
  writeFileSync(nodeFile, JSON.stringify(memory), { mode: 0o600 });
  return () => {
    writeFileSync(trustFile, trust, { mode: 0o600 });
    writeFileSync(nodeFile, node, { mode: 0o600 });
  };
}
