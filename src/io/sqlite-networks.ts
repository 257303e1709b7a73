/**
 * The tables of networks and invitations in a rendezvous' database. Reads and writes rows and nothing else: the
 * transaction around them is the store's.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { WallClock } from "../base/instant.ts";
import type { Invite, JoinRule, NetworkRecord, NewNetwork } from "../rendezvous/store.ts";
import { type NetworkId, type NodeId, networkId, nodeId } from "../wire/ids.ts";
import { LAST_NETWORK, MAX_NETWORKS } from "../wire/registry.ts";

/** Numbers given out are never given out again (AUTOINCREMENT). */
export const NETWORK_SCHEMA = `
  CREATE TABLE network (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    join_rule TEXT NOT NULL,
    token_hash BLOB,
    created_at INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE invite (
    node INTEGER NOT NULL,
    network INTEGER NOT NULL,
    inviter INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (node, network)
  ) STRICT, WITHOUT ROWID;
`;

export class NetworkTables {
  readonly #add: StatementSync;
  readonly #count: StatementSync;
  readonly #byId: StatementSync;
  readonly #byName: StatementSync;
  readonly #all: StatementSync;
  readonly #last: StatementSync;
  readonly #remove: StatementSync;
  readonly #removeInvites: StatementSync;
  readonly #addInvite: StatementSync;
  readonly #invitesOf: StatementSync;
  readonly #removeInvite: StatementSync;

  constructor(database: DatabaseSync) {
    this.#add = database.prepare("INSERT INTO network (name, join_rule, token_hash, created_at) VALUES (?, ?, ?, ?)");
    this.#count = database.prepare("SELECT count(*) AS n FROM network");
    this.#byId = database.prepare("SELECT * FROM network WHERE id = ?");
    this.#byName = database.prepare("SELECT * FROM network WHERE name = ?");
    this.#all = database.prepare("SELECT * FROM network ORDER BY id");
    this.#last = database.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'network'");
    this.#remove = database.prepare("DELETE FROM network WHERE id = ?");
    this.#removeInvites = database.prepare("DELETE FROM invite WHERE network = ?");
    this.#addInvite = database.prepare(
      "INSERT OR REPLACE INTO invite (node, network, inviter, at) VALUES (?, ?, ?, ?)",
    );
    this.#invitesOf = database.prepare("SELECT * FROM invite WHERE node = ? ORDER BY network");
    this.#removeInvite = database.prepare("DELETE FROM invite WHERE node = ? AND network = ?");
  }

  add(network: NewNetwork): NetworkId | undefined {
    if (Number(this.#count.get()!["n"]) >= MAX_NETWORKS) return undefined;
    if (Number(this.#last.get()?.["seq"] ?? 0) >= LAST_NETWORK) return undefined;
    const { name, joinRule, tokenHash, createdAt } = network;
    return networkId(Number(this.#add.run(name, joinRule, tokenHash ?? null, createdAt).lastInsertRowid));
  }

  byId(network: NetworkId): NetworkRecord | undefined {
    return networkRecord(this.#byId.get(network));
  }

  byName(name: string): NetworkRecord | undefined {
    return networkRecord(this.#byName.get(name));
  }

  all(): readonly NetworkRecord[] {
    return this.#all.all().map((row) => networkRecord(row)!);
  }

  /** Its members are the store's to remove. */
  remove(network: NetworkId): void {
    this.#remove.run(network);
    this.#removeInvites.run(network);
  }

  addInvite({ network, node, inviter, at }: Invite): void {
    this.#addInvite.run(node, network, inviter, at);
  }

  invitesOf(node: NodeId): readonly Invite[] {
    return this.#invitesOf.all(node).map((row) => ({
      network: networkId(Number(row["network"])),
      node: nodeId(Number(row["node"])),
      inviter: nodeId(Number(row["inviter"])),
      at: Number(row["at"]) as WallClock,
    }));
  }

  removeInvite(network: NetworkId, node: NodeId): void {
    this.#removeInvite.run(node, network);
  }
}

/** Rows were written by `add` under a STRICT schema, so columns have their types. */
function networkRecord(row: Record<string, unknown> | undefined): NetworkRecord | undefined {
  if (row === undefined) return undefined;
  return {
    network: networkId(Number(row["id"])),
    name: row["name"] as string,
    joinRule: row["join_rule"] as JoinRule,
    tokenHash: (row["token_hash"] as Uint8Array | null) ?? undefined,
    createdAt: Number(row["created_at"]) as WallClock,
  };
}
