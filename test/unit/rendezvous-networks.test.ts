import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { DATABASE_FILE, SqliteStore } from "../../src/io/sqlite-store.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { signedText } from "../../src/wire/registry.ts";
import { type Caller, RegistryLab, type Reply } from "../helpers/registry-caller.ts";

const REFUSED = { type: "error", error: "request failed" };
const DAY_MS = 24 * 3_600_000;
const ADMIN = "the operator's own token";

function networkLab(): RegistryLab {
  return new RegistryLab({ adminToken: ADMIN });
}

function create(lab: RegistryLab, name: string, joinRule: string, more: object = {}): Reply {
  return lab.ask({ type: "create_network", name, join_rule: joinRule, admin_token: ADMIN, ...more });
}

const join = (caller: Caller, network: number, more: object = {}): Reply =>
  caller.signed("join_network", signedText.joinNetwork(caller.node, networkId(network)), {
    network_id: network,
    ...more,
  });

const leave = (caller: Caller, network: number): Reply =>
  caller.signed("leave_network", signedText.leaveNetwork(caller.node, networkId(network)), { network_id: network });

const members = (caller: Caller, network: number): Reply =>
  caller.signed("list_nodes", signedText.listNodes(caller.node, networkId(network)), { network_id: network });

const invite = (by: Caller, network: number, target: Caller): Reply =>
  by.ask({
    type: "invite_to_network",
    inviter_id: by.node,
    network_id: network,
    target_node_id: target.node,
    signature: by.sign(signedText.invite(by.node, networkId(network), target.node)),
  });

const invites = (caller: Caller): unknown =>
  caller.signed("poll_invites", signedText.pollInvites(caller.node))["invites"];

const respond = (caller: Caller, network: number, accept: boolean): Reply =>
  caller.signed("respond_invite", signedText.respondInvite(caller.node, networkId(network)), {
    network_id: network,
    accept,
  });

describe("creating a network", () => {
  test("takes the admin token, and makes the named node its first member", () => {
    const lab = networkLab();
    const a = lab.join(1);
    const refused = { type: "error", error: "admin token required" };
    expect(lab.ask({ type: "create_network", name: "ops", join_rule: "open" })).toEqual(refused);
    expect(create(lab, "ops", "open", { admin_token: "guess" })).toEqual(refused);
    expect(create(lab, "ops", "open", { node_id: a.node })).toMatchObject({ type: "create_network_ok", network_id: 1 });
    expect(lab.ask({ type: "lookup", node_id: a.node })).toMatchObject({ networks: [0, 1] });
  });

  test("is refused to everybody at a registry without an admin token, also to an empty one", () => {
    const lab = new RegistryLab();
    expect(create(lab, "ops", "open", { admin_token: "" })["error"]).toBe("admin token required");
    expect(create(lab, "ops", "open")["error"]).toBe("admin token required");
  });

  test("refuses a bad name, a taken one, an unknown rule and a token rule without a token", () => {
    const lab = networkLab();
    create(lab, "ops", "open");
    expect(create(lab, "Ops!", "open")["error"]).toContain("invalid");
    expect(create(lab, "ops", "invite")["error"]).toContain("already in use");
    expect(create(lab, "dev", "secret")["error"]).toContain("join rule");
    expect(create(lab, "dev", "token")["error"]).toContain("token is required");
  });
});

describe("joining a network", () => {
  test("an open one is for everybody, and the address in it is told", () => {
    const lab = networkLab();
    create(lab, "open", "open");
    const a = lab.join(1);
    expect(join(a, 1)).toMatchObject({ type: "join_network_ok", network_id: 1, address: "1:0001.0000.0001" });
    expect(join(a, 1)).toMatchObject({ type: "join_network_ok" }); // again: the first reply may have been lost
  });

  test("is signed by the node that joins", () => {
    const lab = networkLab();
    create(lab, "open", "open");
    const [a, b] = [lab.join(1), lab.join(2)];
    const forged = b.sign(signedText.joinNetwork(a.node, networkId(1)));
    expect(lab.ask({ type: "join_network", node_id: a.node, network_id: 1, signature: forged })).toEqual(REFUSED);
    expect(lab.ask({ type: "join_network", node_id: a.node, network_id: 1 })["type"]).toBe("error");
    expect(lab.ask({ type: "lookup", node_id: a.node })).toMatchObject({ networks: [0] });
  });

  test("with a token is for who knows it; a wrong one reads like a network that does not exist", () => {
    const lab = networkLab();
    create(lab, "closed", "token", { token: "sesame street" });
    const a = lab.join(1);
    expect(join(a, 1)).toEqual(REFUSED);
    expect(join(a, 1, { token: "sesame" })).toEqual(REFUSED);
    expect(join(a, 999)).toEqual(REFUSED);
    expect(join(a, 1, { token: "sesame street" })).toMatchObject({ type: "join_network_ok" });
  });

  test("cannot be guessed: after some hundred attempts a source is refused the right token too, for a while", () => {
    const lab = networkLab();
    create(lab, "closed", "token", { token: "sesame street" });
    const a = lab.join(1);
    for (let i = 0; i < 300; i++) join(a, 1, { token: `guess ${i}` });
    expect(join(a, 1, { token: "sesame street" })).toEqual(REFUSED);
    lab.pass(2_000);
    expect(join(a, 1, { token: "sesame street" })).toMatchObject({ type: "join_network_ok" });
  });

  test("by invitation only is for those a member invited", () => {
    const lab = networkLab();
    const [a, b, c] = [lab.join(1), lab.join(2), lab.join(3)];
    create(lab, "club", "invite", { node_id: a.node });
    expect(join(b, 1)).toEqual(REFUSED);
    expect(invite(c, 1, b)).toEqual(REFUSED); // not a member
    expect(invite(a, 1, b)).toMatchObject({ type: "invite_to_network_ok" });
    expect(invites(b)).toMatchObject([{ network_id: 1, network_name: "club", inviter_id: a.node }]);
    expect(invites(b)).toHaveLength(1); // a poll takes nothing away
    expect(respond(b, 1, true)).toMatchObject({ type: "respond_invite_ok", accept: true });
    expect(invites(b)).toEqual([]);
    expect(respond(b, 1, true)).toEqual(REFUSED);
    expect(lab.ask({ type: "lookup", node_id: b.node })).toMatchObject({ networks: [0, 1] });
  });

  test("an invitation that was declined is gone, and one that nobody made cannot be accepted", () => {
    const lab = networkLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    create(lab, "club", "invite", { node_id: a.node });
    expect(respond(b, 1, true)).toEqual(REFUSED);
    invite(a, 1, b);
    expect(respond(b, 1, false)).toMatchObject({ accept: false });
    expect(respond(b, 1, true)).toEqual(REFUSED);
    expect(join(b, 1)).toEqual(REFUSED);
  });

  test("an invitation that nobody answered in time is as if it had never been made, and may be made again", () => {
    const lab = networkLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    create(lab, "club", "invite", { node_id: a.node });
    invite(a, 1, b);
    const ends = Math.floor((lab.wall + 30 * DAY_MS) / 1000);
    expect(invites(b)).toMatchObject([{ network_id: 1, expires: ends }]);
    lab.pass(30 * DAY_MS - 1000);
    expect(invites(b)).toHaveLength(1);
    lab.pass(1000);
    expect(respond(b, 1, true)).toEqual(REFUSED);
    expect(join(b, 1)).toEqual(REFUSED);
    expect(invites(b)).toEqual([]);
    expect(lab.store.invitesOf(b.node)).toEqual([]); // and takes no place any more
    expect(invite(a, 1, b)).toMatchObject({ type: "invite_to_network_ok" });
    expect(respond(b, 1, true)).toMatchObject({ accept: true });
  });

  test("ends at 64 networks for one node", () => {
    const lab = networkLab();
    const a = lab.join(1);
    for (let i = 1; i <= 65; i++) create(lab, `n${i}`, "open");
    const types = Array.from({ length: 65 }, (_, i) => join(a, i + 1)["type"]);
    expect(types.filter((type) => type === "join_network_ok")).toHaveLength(64);
    expect(types[64]).toBe("error");
  });

  test("at most a hundred invitations wait for one node", () => {
    const lab = networkLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    for (let i = 1; i <= 101; i++)
      lab.store.addNetwork({ name: `n${i}`, joinRule: "invite", tokenHash: undefined, createdAt: lab.wall });
    for (let i = 1; i <= 101; i++) lab.store.addMember(networkId(i), a.node);
    const types = Array.from({ length: 101 }, (_, i) => invite(a, i + 1, b)["type"]);
    expect(types[99]).toBe("invite_to_network_ok");
    expect(types[100]).toBe("error");
    expect(invite(a, 1, b)["type"]).toBe("invite_to_network_ok"); // a repetition takes no new place
  });
});

describe("deleting a network", () => {
  const remove = (lab: RegistryLab, network: number, more: object = {}) =>
    lab.ask({ type: "delete_network", network_id: network, admin_token: ADMIN, ...more });

  test("takes the admin token, and ends what membership and invitations gave", () => {
    const lab = networkLab();
    const [a, b, c] = [lab.join(1), lab.join(2), lab.join(3)];
    create(lab, "club", "invite", { node_id: a.node });
    invite(a, 1, b);
    respond(b, 1, true);
    invite(a, 1, c);
    expect(a.resolve(b)["type"]).toBe("resolve_ok");
    expect(remove(lab, 1, { admin_token: "guess" })["error"]).toBe("admin token required");
    expect(lab.ask({ type: "delete_network", network_id: 1 })["type"]).toBe("error");
    expect(remove(lab, 1)).toEqual({ type: "delete_network_ok", network_id: 1 });
    expect(a.resolve(b)).toEqual(REFUSED);
    expect(lab.ask({ type: "lookup", node_id: b.node })).toMatchObject({ networks: [0] });
    expect(invites(c)).toEqual([]);
    expect(respond(c, 1, true)).toEqual(REFUSED);
    expect(members(a, 1)).toEqual(REFUSED);
    expect(remove(lab, 1)["error"]).toBe("network not found");
  });

  test("frees its name and never its number, in both stores", () => {
    const dir = mkdtempSync(joinPath(tmpdir(), "rendezvous-delete-"));
    const sqlite = SqliteStore.open(dir);
    for (const lab of [networkLab(), new RegistryLab({ adminToken: ADMIN, store: sqlite })]) {
      create(lab, "club", "open");
      remove(lab, 1);
      expect(create(lab, "club", "open")).toMatchObject({ network_id: 2 });
    }
    sqlite.close();
    rmSync(dir, { recursive: true });
  });

  test("is refused for the network that everybody is in", () => {
    expect(remove(networkLab(), 0)["type"]).toBe("error");
  });
});

describe("members of a network", () => {
  test("may locate each other without a pair, and no longer after one left", () => {
    const lab = networkLab();
    create(lab, "open", "open");
    const [a, b] = [lab.join(1), lab.join(2)];
    expect(a.resolve(b)).toEqual(REFUSED);
    join(a, 1);
    join(b, 1);
    expect(a.resolve(b)).toMatchObject({ real_addr: "198.51.100.2:4000" });
    expect(lab.ask({ type: "check_trust", node_id: a.node, peer_id: b.node })).toMatchObject({ trusted: true });
    expect(leave(b, 1)).toMatchObject({ type: "leave_network_ok" });
    expect(leave(b, 1)).toMatchObject({ type: "leave_network_ok" });
    expect(a.resolve(b)).toEqual(REFUSED);
  });

  test("are listed to members and to the operator, and to nobody else", () => {
    const lab = networkLab();
    const [a, b, c] = [lab.join(1, { hostname: "alpha" }), lab.join(2), lab.join(3)];
    create(lab, "open", "open", { node_id: a.node });
    join(b, 1);
    const listed = [
      { node_id: 1, address: "1:0001.0000.0001", hostname: "alpha", public: false },
      { node_id: 2, address: "1:0001.0000.0002", public: false },
    ];
    expect(members(b, 1)["nodes"]).toEqual(listed);
    expect(members(c, 1)).toEqual(REFUSED);
    expect(members(c, 77)).toEqual(REFUSED);
    expect(lab.ask({ type: "list_nodes", network_id: 1 })["type"]).toBe("error");
    expect(lab.ask({ type: "list_nodes", network_id: 1, admin_token: ADMIN })["nodes"]).toEqual(listed);
    expect(lab.ask({ type: "list_networks" })["networks"]).toMatchObject([
      { id: 0, name: "backbone" },
      { id: 1, name: "open", join_rule: "open", members: 2 },
    ]);
  });
});

test("whatever is asked in whatever order, only who satisfied the rule is ever a member", () => {
  const act = fc.record({
    who: fc.integer({ min: 1, max: 4 }),
    network: fc.integer({ min: 1, max: 4 }),
    what: fc.constantFrom("join", "join with token", "leave", "invite", "accept", "decline"),
    target: fc.integer({ min: 1, max: 4 }),
  });
  fc.assert(
    fc.property(fc.array(act, { maxLength: 40 }), (acts) => {
      const lab = networkLab();
      const callers = [1, 2, 3, 4].map((seed) => lab.join(seed));
      create(lab, "open", "open");
      create(lab, "token", "token", { token: "right" });
      create(lab, "club", "invite", { node_id: callers[0]!.node });
      const isIn = new Set(["3 1"]);
      const invited = new Set<string>();
      for (const { who, network, what, target } of acts) {
        const caller = callers[who - 1]!;
        const key = `${network} ${who}`;
        const exists = network <= 3;
        if (what === "join" || what === "join with token") {
          join(caller, network, what === "join" ? {} : { token: "right" });
          const may = network === 1 || (network === 2 && what === "join with token") || invited.has(key);
          if (exists && may) {
            isIn.add(key);
            invited.delete(key);
          }
        } else if (what === "leave") {
          leave(caller, network);
          isIn.delete(key);
        } else if (what === "invite") {
          invite(caller, network, callers[target - 1]!);
          if (isIn.has(key) && !isIn.has(`${network} ${target}`)) invited.add(`${network} ${target}`);
        } else {
          respond(caller, network, what === "accept");
          if (invited.delete(key) && what === "accept") isIn.add(key);
        }
        const held = [1, 2, 3, 4].flatMap((n) => lab.store.membersOf(networkId(n)).map((node) => `${n} ${node}`));
        expect(held.sort()).toEqual([...isIn].sort());
      }
      expect(lab.store.networksOf(nodeId(99))).toEqual([]);
    }),
    { numRuns: 60 },
  );
});

test("a database from before networks existed is brought up to date and keeps what it held", () => {
  const dir = mkdtempSync(joinPath(tmpdir(), "rendezvous-schema-"));
  try {
    const first = SqliteStore.open(dir);
    first.addConsent(nodeId(1), nodeId(2));
    first.close();
    const older = new DatabaseSync(joinPath(dir, DATABASE_FILE));
    older.exec("DROP TABLE network; DROP TABLE invite; DROP TABLE rendezvous; PRAGMA user_version = 1");
    older.close();
    const opened = SqliteStore.open(dir);
    expect(opened.hasConsent(nodeId(1), nodeId(2))).toBe(true);
    const at = 1 as WallClock;
    expect(opened.addNetwork({ name: "ops", joinRule: "open", tokenHash: undefined, createdAt: at })).toBe(1);
    const id = opened.rendezvousId;
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    opened.close();
    const again = SqliteStore.open(dir);
    expect(again.rendezvousId).toBe(id);
    again.close();
  } finally {
    rmSync(dir, { recursive: true });
  }
});
