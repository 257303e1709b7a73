import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { SqliteStore } from "../../src/io/sqlite-store.ts";
import { MemoryStore } from "../../src/rendezvous/memory-store.ts";
import type { NewNode, Store } from "../../src/rendezvous/store.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";

/** One call on a store, and everything that can be read afterwards; both stores must give the same. */
type Step = (store: Store) => unknown;

const MAX_NODES = 6;
const node = fc.integer({ min: 1, max: MAX_NODES + 1 }).map(nodeId);
const network = fc.integer({ min: 1, max: 3 }).map(networkId);
const kind = fc.constantFrom("request" as const, "response" as const);
const hostname = fc.option(fc.constantFrom("a", "b", "c"), { nil: undefined });
const at = fc.integer({ min: 0, max: 1e13 }).map((ms) => ms as WallClock);
const endpoint = fc.option(
  fc.constantFrom({ address: "192.0.2.1", port: 1 }, { address: "2001:db8::1", port: 65535 }),
  { nil: undefined },
);
const profile = fc.record({
  endpoint,
  lanAddrs: fc.array(fc.constantFrom("192.168.1.1:1", "[fe80::1]:2"), { maxLength: 3 }),
  isPublic: fc.boolean(),
  relayOnly: fc.boolean(),
  mustSign: fc.boolean(),
  taskExec: fc.boolean(),
  tags: fc.array(fc.string({ maxLength: 32 }), { maxLength: 3 }),
  version: fc.string({ maxLength: 10 }),
  keySince: at,
  seenAt: at,
});
const key = fc.integer({ min: 0, max: 255 }).map((byte) => new Uint8Array(32).fill(byte));

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(key, profile).map(
    ([publicKey, rest]): Step =>
      (store) =>
        addNode(store, { ...rest, publicKey }),
  ),
  fc.tuple(node, hostname, profile).map(
    ([id, name, rest]): Step =>
      (store) =>
        updateNode(store, id, name, rest),
  ),
  fc.tuple(node, node).map(
    ([a, b]): Step =>
      (store) =>
        store.addConsent(a, b),
  ),
  fc.tuple(node, node).map(
    ([a, b]): Step =>
      (store) =>
        store.removeConsent(a, b),
  ),
  fc.tuple(node, kind, node, fc.string(), fc.boolean(), at).map(
    ([to, of, from, justification, accept, time]): Step =>
      (store) =>
        store.addInboxItem(to, { kind: of, from, justification, accept, at: time }),
  ),
  fc.tuple(node, fc.nat({ max: 40 })).map(
    ([to, serial]): Step =>
      (store) =>
        store.removeInboxUpTo(to, serial),
  ),
  fc.tuple(node, node, kind).map(
    ([to, from, of]): Step =>
      (store) =>
        store.removeInboxFrom(to, from, of),
  ),
  fc.tuple(network, node).map(
    ([net, id]): Step =>
      (store) =>
        store.addMember(net, id),
  ),
  fc.tuple(network, node).map(
    ([net, id]): Step =>
      (store) =>
        store.removeMember(net, id),
  ),
  fc.tuple(fc.constantFrom("a", "b", "c"), fc.constantFrom("open", "token", "invite"), key, at).map(
    ([name, joinRule, tokenHash, createdAt]): Step =>
      (store) =>
        store.networkByName(name)?.network ?? store.addNetwork({ name, joinRule, tokenHash, createdAt }),
  ),
  network.map(
    (net): Step =>
      (store) =>
        store.removeNetwork(net),
  ),
  fc.tuple(network, node, node, at).map(
    ([net, id, inviter, time]): Step =>
      (store) =>
        store.addInvite({ network: net, node: id, inviter, at: time }),
  ),
  fc.tuple(network, node).map(
    ([net, id]): Step =>
      (store) =>
        store.removeInvite(net, id),
  ),
);

/** The rules above a store never add a key or take a name that is there already. */
function addNode(store: Store, added: Omit<NewNode, "hostname">): unknown {
  return store.nodeByKey(added.publicKey)?.node ?? store.addNode({ ...added, hostname: undefined });
}

function updateNode(store: Store, id: ReturnType<typeof nodeId>, name: string | undefined, rest: object): void {
  const known = store.nodeById(id);
  const isTaken = name !== undefined && (store.nodeByHostname(name)?.node ?? id) !== id;
  if (known !== undefined) store.updateNode({ ...known, ...rest, hostname: isTaken ? known.hostname : name });
}

function everything(store: Store): unknown {
  const ids = Array.from({ length: MAX_NODES + 1 }, (_, i) => nodeId(i + 1));
  return {
    count: store.nodeCount(),
    nodes: ids.map((id) => store.nodeById(id)),
    names: ["a", "b", "c"].map((name) => store.nodeByHostname(name)?.node),
    consents: ids.map((id) => [store.countConsents(id, 2), ids.map((other) => store.hasConsent(id, other))]),
    inboxes: ids.map((id) => [store.inbox(id), store.countInbox(id, "request"), store.countInbox(id, "response")]),
    waiting: ids.map((id) => ids.map((from) => store.hasInboxItem(id, "request", from))),
    networks: ids.map((id) => store.networksOf(id)),
    members: [1, 2, 3].map((net) => [store.membersOf(networkId(net)), store.countMembers(networkId(net))]),
    known: [store.networks(), [1, 2, 3].map((net) => store.networkById(networkId(net)))],
    invited: ids.map((id) => store.invitesOf(id)),
  };
}

/** Key order and the kind of byte array are not part of what is stored. */
const plain = (value: unknown) => JSON.parse(JSON.stringify(value, (_, v) => (v instanceof Uint8Array ? [...v] : v)));

test("the SQLite store answers as the one in memory, before a commit, after it, and after it was opened again", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.nat({ max: 40 }), (steps, commitAfter) => {
      const dir = mkdtempSync(join(tmpdir(), "rendezvous-store-"));
      let sqlite = SqliteStore.open(dir, MAX_NODES);
      try {
        const memory = new MemoryStore(MAX_NODES);
        steps.forEach((act, index) => {
          expect(plain(act(sqlite) ?? null)).toEqual(plain(act(memory) ?? null));
          if (index === commitAfter) sqlite.commit();
        });
        expect(plain(everything(sqlite))).toEqual(plain(everything(memory)));
        sqlite.close();
        sqlite = SqliteStore.open(dir, MAX_NODES);
        expect(plain(everything(sqlite))).toEqual(plain(everything(memory)));
      } finally {
        sqlite.close();
        rmSync(dir, { recursive: true });
      }
    }),
    { numRuns: 60 },
  );
});

test("a rollback undoes everything since the last commit, and nothing before it", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), fc.array(step, { maxLength: 20 }), (kept, undone) => {
      const dir = mkdtempSync(join(tmpdir(), "rendezvous-store-"));
      const store = SqliteStore.open(dir, MAX_NODES);
      try {
        for (const act of kept) act(store);
        store.commit();
        const before = plain(everything(store));
        for (const act of undone) act(store);
        store.rollback();
        expect(plain(everything(store))).toEqual(before);
        expect(store.isDirty).toBe(false);
      } finally {
        store.close();
        rmSync(dir, { recursive: true });
      }
    }),
    { numRuns: 40 },
  );
});
