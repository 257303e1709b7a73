/**
 * The store of a rendezvous in one SQLite file. Write-ahead log with synchronous=FULL: what was committed survives a
 * crash of the process and of the machine. The first change after a commit opens a transaction; `commit` ends it, and
 * the owner calls it once per turn of the event loop and before any reply of that turn leaves, so that requests that
 * arrive together share one flush to the disk. A second process cannot open the same file (exclusive lock).
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { fromHex } from "../base/bytes.ts";
import { formatEndpoint, splitEndpoint } from "../base/endpoint.ts";
import type { WallClock } from "../base/instant.ts";
import { PilotError } from "../base/pilot-error.ts";
import type { InboxItem, Invite, NetworkRecord, NewNetwork, NewNode, NodeRecord, Store } from "../rendezvous/store.ts";
import { type NetworkId, type NodeId, networkId, nodeId } from "../wire/ids.ts";
import { NETWORK_SCHEMA, NetworkTables } from "./sqlite-networks.ts";

export const DATABASE_FILE = "rendezvous.db";

export class SqliteStore implements Store {
  readonly #database: DatabaseSync;
  readonly #maxNodes: number;
  readonly #statements: Statements;
  readonly #networks: NetworkTables;
  /** Made with the database and kept in its backups: nodes prove themselves to it by name. 32 hex digits. */
  readonly rendezvousId: string;
  #nodeCount: number;
  #isDirty = false;

  private constructor(database: DatabaseSync, maxNodes: number) {
    this.#database = database;
    this.#maxNodes = maxNodes;
    this.#statements = prepareStatements(database);
    this.#networks = new NetworkTables(database);
    this.rendezvousId = database.prepare("SELECT id FROM rendezvous").get()!["id"] as string;
    this.#nodeCount = this.#countNodes();
  }

  /** Opens or makes the database in `stateDir`; a PilotError says what is wrong and what to do. */
  static open(stateDir: string, maxNodes = 5_000_000): SqliteStore {
    const file = join(stateDir, DATABASE_FILE);
    makeStateDir(stateDir);
    let database: DatabaseSync | undefined;
    try {
      database = new DatabaseSync(file);
      prepareDatabase(database, file);
      return new SqliteStore(database, maxNodes);
    } catch (cause) {
      database?.close();
      throw openError(file, cause);
    }
  }

  /** True while there are changes that `commit` would make durable. */
  get isDirty(): boolean {
    return this.#isDirty;
  }

  /** Makes every change so far durable; throws, and has undone them all, when the disk refuses. */
  commit(): void {
    if (!this.#isDirty) return;
    this.#isDirty = false;
    try {
      this.#database.exec("COMMIT");
    } catch (cause) {
      this.#rollback();
      throw cause;
    }
  }

  /** Undoes every change since the last commit. */
  rollback(): void {
    if (!this.#isDirty) return;
    this.#isDirty = false;
    this.#rollback();
  }

  /** Writes and flushes something harmless; throws when the disk refuses. */
  probe(): void {
    if (!this.#isDirty) this.#database.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`);
  }

  /**
   * Brings everything committed into the database file and lets later changes go to the log only, so that the file
   * stands still and can be copied while the registry goes on. Only while nothing waits for a commit.
   */
  freezeFile(): void {
    this.#database.exec("PRAGMA wal_autocheckpoint = 0");
    const result = this.#database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get()!;
    if (number(result, "busy") !== 0) throw new Error("the write-ahead log could not be emptied");
  }

  thawFile(): void {
    this.#database.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
  }

  close(): void {
    this.commit();
    this.#database.close();
  }

  addNode(node: NewNode): NodeId | undefined {
    if (this.#nodeCount >= this.#maxNodes) return undefined;
    this.#begin();
    const { lastInsertRowid } = this.#statements.addNode.run(...nodeColumns(node));
    this.#nodeCount++;
    return nodeId(Number(lastInsertRowid));
  }

  updateNode(node: NodeRecord): void {
    this.#begin();
    this.#statements.updateNode.run(...nodeColumns(node), node.node);
  }

  nodeById(node: NodeId): NodeRecord | undefined {
    return nodeRecord(valuesOf(this.#statements.nodeById.get(node)));
  }

  keyOf(node: NodeId): Uint8Array | undefined {
    const values = valuesOf(this.#statements.keyOf.get(node));
    return values && keyIn(values[0]);
  }

  nodeByKey(publicKey: Uint8Array): NodeRecord | undefined {
    return nodeRecord(valuesOf(this.#statements.nodeByKey.get(publicKey)));
  }

  nodeByHostname(hostname: string): NodeRecord | undefined {
    return nodeRecord(valuesOf(this.#statements.nodeByHostname.get(hostname)));
  }

  nodeCount(): number {
    return this.#nodeCount;
  }

  hasConsent(from: NodeId, to: NodeId): boolean {
    return this.#statements.hasConsent.get(from, to) !== undefined;
  }

  addConsent(from: NodeId, to: NodeId): void {
    this.#begin();
    this.#statements.addConsent.run(from, to);
  }

  removeConsent(from: NodeId, to: NodeId): boolean {
    if (!this.hasConsent(from, to)) return false;
    this.#begin();
    this.#statements.removeConsent.run(from, to);
    return true;
  }

  countConsents(from: NodeId, limit: number): number {
    return number(this.#statements.countConsents.get(from, limit)!, "n");
  }

  addInboxItem(to: NodeId, item: Omit<InboxItem, "serial">): void {
    this.#begin();
    const { kind, from, justification, accept, at } = item;
    this.#statements.addInboxItem.run(to, kind, from, justification, accept ? 1 : 0, at);
  }

  hasInboxItem(to: NodeId, kind: InboxItem["kind"], from: NodeId): boolean {
    return this.#statements.hasInboxItem.get(to, kind, from) !== undefined;
  }

  countInbox(to: NodeId, kind: InboxItem["kind"]): number {
    return number(this.#statements.countInbox.get(to, kind)!, "n");
  }

  inbox(to: NodeId): readonly InboxItem[] {
    return this.#statements.inbox.all(to).map(inboxItem);
  }

  removeInboxUpTo(to: NodeId, serial: number): void {
    this.#begin();
    this.#statements.removeInboxUpTo.run(to, serial);
  }

  removeInboxFrom(to: NodeId, from: NodeId, kind: InboxItem["kind"]): void {
    this.#begin();
    this.#statements.removeInboxFrom.run(to, from, kind);
  }

  networksOf(node: NodeId): readonly NetworkId[] {
    return this.#statements.networksOf.all(node).map((row) => networkId(number(row, "network")));
  }

  membersOf(network: NetworkId): readonly NodeId[] {
    return this.#statements.membersOf.all(network).map((row) => nodeId(number(row, "node")));
  }

  addMember(network: NetworkId, node: NodeId): void {
    this.#begin();
    this.#statements.addMember.run(node, network);
  }

  removeMember(network: NetworkId, node: NodeId): void {
    this.#begin();
    this.#statements.removeMember.run(node, network);
  }

  countMembers(network: NetworkId): number {
    return number(this.#statements.countMembers.get(network)!, "n");
  }

  addNetwork(network: NewNetwork): NetworkId | undefined {
    this.#begin();
    return this.#networks.add(network);
  }

  networkById(network: NetworkId): NetworkRecord | undefined {
    return this.#networks.byId(network);
  }

  networkByName(name: string): NetworkRecord | undefined {
    return this.#networks.byName(name);
  }

  networks(): readonly NetworkRecord[] {
    return this.#networks.all();
  }

  removeNetwork(network: NetworkId): void {
    this.#begin();
    this.#statements.removeMembers.run(network);
    this.#networks.remove(network);
  }

  addInvite(invite: Invite): void {
    this.#begin();
    this.#networks.addInvite(invite);
  }

  invitesOf(node: NodeId): readonly Invite[] {
    return this.#networks.invitesOf(node);
  }

  removeInvite(network: NetworkId, node: NodeId): void {
    this.#begin();
    this.#networks.removeInvite(network, node);
  }

  #begin(): void {
    if (this.#isDirty) return;
    this.#database.exec("BEGIN");
    this.#isDirty = true;
  }

  #rollback(): void {
    if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
    this.#nodeCount = this.#countNodes();
  }

  #countNodes(): number {
    return number(this.#statements.countNodes.get()!, "n");
  }
}

/** Numbers given out are never given out again (AUTOINCREMENT); consents and members need no row number of their own. */
const SCHEMA = `
  CREATE TABLE node (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_key BLOB NOT NULL UNIQUE,
    hostname TEXT UNIQUE,
    endpoint TEXT,
    lan_addrs TEXT NOT NULL,
    is_public INTEGER NOT NULL,
    relay_only INTEGER NOT NULL,
    must_sign INTEGER NOT NULL,
    task_exec INTEGER NOT NULL,
    tags TEXT NOT NULL,
    version TEXT NOT NULL,
    key_since INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE consent (
    from_node INTEGER NOT NULL,
    to_node INTEGER NOT NULL,
    PRIMARY KEY (from_node, to_node)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE inbox (
    serial INTEGER PRIMARY KEY AUTOINCREMENT,
    to_node INTEGER NOT NULL,
    kind TEXT NOT NULL,
    from_node INTEGER NOT NULL,
    justification TEXT NOT NULL,
    accept INTEGER NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (to_node, kind, from_node)
  ) STRICT;
  CREATE TABLE member (
    node INTEGER NOT NULL,
    network INTEGER NOT NULL,
    PRIMARY KEY (node, network)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX member_by_network ON member (network, node);
`;

/** One row. */
const RENDEZVOUS_SCHEMA = `
  CREATE TABLE rendezvous (id TEXT NOT NULL) STRICT;
  INSERT INTO rendezvous (id) VALUES (lower(hex(randomblob(16))));
`;

const NODE_COLUMNS = [
  "public_key",
  "hostname",
  "endpoint",
  "lan_addrs",
  "is_public",
  "relay_only",
  "must_sign",
  "task_exec",
  "tags",
  "version",
  "key_since",
  "seen_at",
];

function prepareStatements(database: DatabaseSync) {
  const sql = (text: string): StatementSync => database.prepare(text);
  /** For what is asked often: its rows are arrays, which cost a quarter of an object with names. */
  const frequent = (text: string): StatementSync => {
    const statement = sql(text);
    statement.setReturnArrays(true);
    return statement;
  };
  const node = `SELECT id, ${KEY}, ${NODE_COLUMNS.slice(1).join(", ")} FROM node`;
  const marks = NODE_COLUMNS.map(() => "?").join(", ");
  return {
    addNode: sql(`INSERT INTO node (${NODE_COLUMNS.join(", ")}) VALUES (${marks})`),
    updateNode: sql(`UPDATE node SET ${NODE_COLUMNS.map((name) => `${name} = ?`).join(", ")} WHERE id = ?`),
    nodeById: frequent(`${node} WHERE id = ?`),
    keyOf: frequent(`SELECT ${KEY} FROM node WHERE id = ?`),
    nodeByKey: frequent(`${node} WHERE public_key = ?`),
    nodeByHostname: frequent(`${node} WHERE hostname = ?`),
    countNodes: sql("SELECT count(*) AS n FROM node"),
    hasConsent: frequent("SELECT 1 FROM consent WHERE from_node = ? AND to_node = ?"),
    addConsent: sql("INSERT OR IGNORE INTO consent (from_node, to_node) VALUES (?, ?)"),
    removeConsent: sql("DELETE FROM consent WHERE from_node = ? AND to_node = ?"),
    countConsents: sql("SELECT count(*) AS n FROM (SELECT 1 FROM consent WHERE from_node = ? LIMIT ?)"),
    addInboxItem: sql(
      `INSERT OR REPLACE INTO inbox (to_node, kind, from_node, justification, accept, at) VALUES (?, ?, ?, ?, ?, ?)`,
    ),
    hasInboxItem: sql("SELECT 1 FROM inbox WHERE to_node = ? AND kind = ? AND from_node = ?"),
    countInbox: sql("SELECT count(*) AS n FROM inbox WHERE to_node = ? AND kind = ?"),
    inbox: sql("SELECT * FROM inbox WHERE to_node = ? ORDER BY serial"),
    removeInboxUpTo: sql("DELETE FROM inbox WHERE to_node = ? AND serial <= ?"),
    removeInboxFrom: sql("DELETE FROM inbox WHERE to_node = ? AND from_node = ? AND kind = ?"),
    networksOf: sql("SELECT network FROM member WHERE node = ? ORDER BY network"),
    membersOf: sql("SELECT node FROM member WHERE network = ? ORDER BY node"),
    countMembers: sql("SELECT count(*) AS n FROM member WHERE network = ?"),
    addMember: sql("INSERT OR IGNORE INTO member (node, network) VALUES (?, ?)"),
    removeMembers: sql("DELETE FROM member WHERE network = ?"),
    removeMember: sql("DELETE FROM member WHERE node = ? AND network = ?"),
  };
}

type Statements = ReturnType<typeof prepareStatements>;
type Row = Record<string, unknown>;
/** Of a row, in the order that the statement names them. */
type Values = readonly unknown[];

/** The types of node:sqlite do not know which statements return arrays. */
function valuesOf(row: object | undefined): Values | undefined {
  return row as Values | undefined;
}

function nodeColumns(node: NewNode) {
  const flag = (value: boolean): number => (value ? 1 : 0);
  return [
    node.publicKey,
    node.hostname ?? null,
    node.endpoint === undefined ? null : formatEndpoint(node.endpoint),
    JSON.stringify(node.lanAddrs),
    flag(node.isPublic),
    flag(node.relayOnly),
    flag(node.mustSign),
    flag(node.taskExec),
    JSON.stringify(node.tags),
    node.version,
    node.keySince,
    node.seenAt,
  ];
}

/** Rows were written by `nodeColumns` under a STRICT schema, so columns have their types. */
function nodeRecord(values: Values | undefined): NodeRecord | undefined {
  if (values === undefined) return undefined;
  const [id, publicKey, hostname, endpoint, lanAddrs, isPublic, relayOnly, mustSign, taskExec, tags, version] = values;
  return {
    node: nodeId(id as number),
    publicKey: keyIn(publicKey),
    hostname: (hostname as string | null) ?? undefined,
    endpoint: endpoint === null ? undefined : splitEndpoint(endpoint as string),
    lanAddrs: textsOf(lanAddrs as string),
    isPublic: isPublic === 1,
    relayOnly: relayOnly === 1,
    mustSign: mustSign === 1,
    taskExec: taskExec === 1,
    tags: textsOf(tags as string),
    version: version as string,
    keySince: values[11] as WallClock,
    seenAt: values[12] as WallClock,
  };
}

function inboxItem(row: Row): InboxItem {
  return {
    serial: number(row, "serial"),
    kind: row["kind"] as InboxItem["kind"],
    from: nodeId(number(row, "from_node")),
    justification: row["justification"] as string,
    accept: row["accept"] === 1,
    at: number(row, "at") as WallClock,
  };
}

/** As text: a blob would come with memory of its own, which costs the allocator and the collector more than this. */
const KEY = "hex(public_key)";

function keyIn(value: unknown): Uint8Array {
  return fromHex(value as string)!;
}

function textsOf(json: string): readonly string[] {
  return json === "[]" ? NO_TEXTS : (JSON.parse(json) as string[]);
}

function number(row: Row, column: string): number {
  return row[column] as number;
}

function makeStateDir(stateDir: string): void {
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw unwritable(stateDir, cause);
  }
}

function prepareDatabase(database: DatabaseSync, file: string): void {
  // The lock first: a connection that has looked into the file shares it for good.
  database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  database.exec(`PRAGMA cache_size = -${CACHE_KIB}`);
  const version = number(database.prepare("PRAGMA user_version").get()!, "user_version");
  if (version > SCHEMA_VERSION) throw newerSchema(file, version);
  const missing = [SCHEMA, NETWORK_SCHEMA, RENDEZVOUS_SCHEMA].slice(version).join("");
  if (missing !== "") database.exec(`BEGIN; ${missing} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`);
  const check = database.prepare("PRAGMA quick_check(1)").get() as Row;
  if (check["quick_check"] !== "ok") throw damaged(file, undefined);
}

function openError(file: string, cause: unknown): unknown {
  if (cause instanceof PilotError) return cause;
  // The primary result code is the low byte (sqlite.org/rescode.html).
  const code = cause instanceof Error && "errcode" in cause ? Number(cause.errcode) & 0xff : 0;
  if (code === SQLITE_BUSY || code === SQLITE_LOCKED) return inUse(file, cause);
  if (code === SQLITE_CORRUPT || code === SQLITE_NOTADB) return damaged(file, cause);
  return unwritable(file, cause);
}

function damaged(file: string, cause: unknown): PilotError {
  return new PilotError(
    "database_damaged",
    `The database ${file} is damaged; it was left as it is`,
    `Restore ${file} from a backup, or move it away to start with an empty registry: every node would get a new number.`,
    cause,
  );
}

function inUse(file: string, cause: unknown): PilotError {
  return new PilotError(
    "state_in_use",
    `The database ${file} is in use by another process`,
    "Stop the other rendezvous, or choose another folder with --state.",
    cause,
  );
}

function newerSchema(file: string, version: number): PilotError {
  return new PilotError(
    "database_newer",
    `The database ${file} has schema ${version}; this program knows up to ${SCHEMA_VERSION}`,
    "Start the newer version of the program that wrote it.",
  );
}

function unwritable(path: string, cause: unknown): PilotError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new PilotError(
    "state_unwritable",
    `Cannot write ${path}: ${reason}`,
    "Choose another folder with --state, or give this user the right to write there.",
    cause,
  );
}

const NO_TEXTS: readonly string[] = [];
/** 2 added networks and invitations, 3 the id of the rendezvous. */
export const SCHEMA_VERSION = 3;
/** SQLite's default. */
const CHECKPOINT_PAGES = 1000;
/** Of the database in memory, at most: what is asked for most must not be read from the system again each time. */
const CACHE_KIB = 65_536;
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;
const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;
