import { describe, expect, test } from "vitest";
import { toBase64 } from "../../src/base/bytes.ts";
import { SILENCE_MS } from "../../src/rendezvous/live-directory.ts";
import { observedEndpoint } from "../../src/rendezvous/observed-endpoint.ts";
import { Conversation } from "../../src/rendezvous/request-context.ts";
import { networkId } from "../../src/wire/ids.ts";
import { signedText } from "../../src/wire/registry.ts";
import { Caller, RegistryLab } from "../helpers/registry-caller.ts";

const REFUSED = { type: "error", error: "request failed" };

describe("registration", () => {
  test("the same key keeps its number and address for ever, through silence and deregistration", () => {
    const lab = new RegistryLab();
    const a = lab.join(1);
    lab.join(2);
    lab.pass(40 * 24 * 3_600_000);
    expect(a.register()).toMatchObject({ node_id: 1, address: "0:0000.0000.0001" });
    a.signed("deregister", signedText.deregister(a.node));
    expect(a.register()).toMatchObject({ node_id: 1, address: "0:0000.0000.0001" });
    expect(lab.join(3).node).toBe(3);
  });

  test("a registration whose signature is wrong is refused", () => {
    const lab = new RegistryLab();
    const a = new Caller(lab, 1);
    expect(a.register({ signature: a.sign("register:0.0.0.0:4001:else") })).toEqual(REFUSED);
    expect(a.register({ signature: "not base64" })).toEqual(REFUSED);
    expect(a.registerSigned()).toMatchObject({ type: "register_ok", node_id: 1 });
  });

  test("a key that registered signed once may not register unsigned again", () => {
    const lab = new RegistryLab();
    const a = new Caller(lab, 1);
    a.register();
    a.register(); // unsigned before the first signed one is the older generations' way
    a.registerSigned();
    const thief = new Conversation("203.0.113.66");
    const stolen = { type: "register", listen_addr: "0.0.0.0:6666", public_key: a.key };
    expect(lab.ask(stolen, thief)).toEqual({ type: "error", error: "signature required for authenticated node" });
    const b = lab.join(2);
    a.reportTrust(b);
    b.reportTrust(a);
    expect(b.resolve(a)).toMatchObject({ real_addr: "198.51.100.1:4000" });
  });

  test("an unsigned registration of somebody's key cannot make a private node public", () => {
    const lab = new RegistryLab();
    const a = lab.join(1);
    a.register({ public: true });
    expect(lab.ask({ type: "lookup", node_id: 1 })).toMatchObject({ public: false });
    a.registerSigned({ public: true });
    expect(lab.ask({ type: "lookup", node_id: 1 })).toMatchObject({ public: true, real_addr: "198.51.100.1:4000" });
  });

  test("an owner text hands nobody another key's node", () => {
    const lab = new RegistryLab();
    const a = lab.join(1, { owner: "x@example.org" });
    const b = lab.join(2, { owner: "x@example.org" });
    expect(b.node).not.toBe(a.node);
    expect(lab.ask({ type: "lookup", node_id: a.node })).toMatchObject({ public_key: a.key });
  });

  test("LAN addresses are kept and given to whom may resolve: valid ones, and not more than sixteen", () => {
    const lab = new RegistryLab();
    const many = Array.from({ length: 100 }, (_, i) => `10.0.0.${i}:4000`);
    lab.join(1, { public: true, lan_addrs: ["eth0", "10.0.0.1:0", "[fd00::1]:4000", ...many] });
    const reply = lab.join(2).resolve(1);
    expect(reply["lan_addrs"]).toEqual(["[fd00::1]:4000", ...many.slice(0, 15)]);
  });

  test("a hostname that is taken or malformed is reported and the node registered without it", () => {
    const lab = new RegistryLab();
    lab.join(1, { hostname: "alpha" });
    const reply = new Caller(lab, 2).register({ hostname: "alpha" });
    expect(reply).toMatchObject({ type: "register_ok", hostname_error: 'hostname "alpha" already in use' });
    expect(new Caller(lab, 3).register({ hostname: "Not A Name" })).toMatchObject({
      hostname_error: "invalid hostname",
    });
    expect(new Caller(lab, 4).register({ hostname: "localhost" })).toMatchObject({
      hostname_error: "invalid hostname",
    });
  });

  test("a name outlives its node's silence, and is free a month after the node was last seen", () => {
    const lab = new RegistryLab();
    lab.join(1, { hostname: "alpha", public: true });
    lab.pass(29 * 24 * 3_600_000);
    expect(new Caller(lab, 2).register({ hostname: "alpha" })).toHaveProperty("hostname_error");
    lab.pass(2 * 24 * 3_600_000);
    expect(new Caller(lab, 2).register({ hostname: "alpha" })).toMatchObject({ hostname: "alpha" });
    expect(lab.ask({ type: "lookup", node_id: 1 })).not.toHaveProperty("hostname");
  });

  test("new keys from one source are limited, known keys and other sources are not", () => {
    const lab = new RegistryLab({ limits: { newKeys: { perSecond: 1, burst: 2 } } });
    const source = new Conversation("203.0.113.1");
    const join = (seed: number) => {
      const caller = new Caller(lab, seed);
      caller.conversation = source;
      return caller.register()["type"];
    };
    expect([join(1), join(2), join(3), join(1)]).toEqual(["register_ok", "register_ok", "error", "register_ok"]);
    expect(new Caller(lab, 4).register()["type"]).toBe("register_ok");
    lab.pass(1000);
    expect(join(3)).toBe("register_ok");
  });

  test("rotating moves the number to the new key, verified by the old one", () => {
    const lab = new RegistryLab();
    const a = lab.join(1);
    const b = lab.join(2);
    const fresh = new Caller(lab, 9);
    const rotate = (by: Caller, key: string) =>
      lab.ask({ type: "rotate_key", node_id: a.node, new_public_key: key, signature: by.sign("rotate:1") });
    expect(rotate(b, fresh.key)).toEqual(REFUSED);
    expect(rotate(a, b.key)).toEqual(REFUSED); // another node's
    expect(rotate(a, fresh.key)).toMatchObject({ type: "rotate_key_ok", node_id: 1, public_key: fresh.key });
    expect(rotate(a, toBase64(new Uint8Array(32)))).toEqual(REFUSED); // the same signature again proves nothing any more
    expect(fresh.register()).toMatchObject({ node_id: 1 });
    expect(new Caller(lab, 1).register()).toMatchObject({ node_id: 3 });
  });
});

describe("observed endpoint", () => {
  test.each([
    ["198.51.100.7", "0.0.0.0:4000", "198.51.100.7:4000"],
    ["198.51.100.7", "[::1]:4000", "198.51.100.7:4000"],
    ["198.51.100.7", ":4000", "198.51.100.7:4000"],
    ["198.51.100.7", "192.168.1.5:4000", "198.51.100.7:4000"],
    ["198.51.100.7", "203.0.113.9:4000", "198.51.100.7:4000"], // a public source cannot name another's address
    ["10.0.0.7", "203.0.113.9:4000", "203.0.113.9:4000"], // our own LAN cannot show us its public side
    ["10.0.0.7", "192.168.1.5:4000", "10.0.0.7:4000"],
    ["127.0.0.1", "10.1.2.3:4000", "127.0.0.1:4000"],
    ["2001:db8::7", "[::]:4000", "2001:db8::7:4000"],
    ["198.51.100.7", "no port", undefined],
    ["198.51.100.7", "0.0.0.0:0", undefined],
    ["198.51.100.7", "", undefined],
  ])("connection from %s claiming %s is stored as %s", (source, claim, expected) => {
    const endpoint = observedEndpoint(source, claim);
    expect(endpoint && `${endpoint.address}:${endpoint.port}`).toBe(expected);
  });
});

describe("heartbeat", () => {
  test("is verified every time, also right after a good one", () => {
    const lab = new RegistryLab();
    const a = lab.join(1);
    expect(a.heartbeat()).toEqual({ type: "heartbeat_ok", time: 1_800_000_000 });
    expect(a.signed("heartbeat", "heartbeat:2")).toEqual(REFUSED);
    expect(a.ask({ type: "heartbeat", node_id: 1 })).toMatchObject({ error: expect.stringContaining("required") });
  });

  test("a node silent for five minutes has no endpoint, and its next heartbeat says that it must register", () => {
    const lab = new RegistryLab();
    const a = lab.join(1);
    const b = lab.join(2, { public: true });
    lab.pass(SILENCE_MS - 1);
    a.heartbeat();
    expect(a.resolve(b)["type"]).toBe("resolve_ok");
    lab.pass(1);
    expect(a.resolve(b)).toEqual(REFUSED);
    expect(lab.ask({ type: "lookup", node_id: 2 })).not.toHaveProperty("real_addr");
    expect(b.heartbeat()).toEqual({ type: "error", error: "node 2: node not found" });
    b.register();
    expect(a.resolve(b)["type"]).toBe("resolve_ok");
  });

  test("a changed listen_addr that is covered by the signature moves the endpoint, another one does not", () => {
    const lab = new RegistryLab();
    const a = lab.join(1, { public: true });
    a.signed("heartbeat", signedText.heartbeat(a.node, "0.0.0.0:4444"), { listen_addr: "0.0.0.0:4444" });
    expect(lab.ask({ type: "lookup", node_id: 1 })).toMatchObject({ real_addr: "198.51.100.1:4444" });
    a.signed("heartbeat", signedText.heartbeat(a.node), { listen_addr: "0.0.0.0:5555" });
    expect(lab.ask({ type: "lookup", node_id: 1 })).toMatchObject({ real_addr: "198.51.100.1:4444" });
  });

  test("a node that registers without an endpoint stays, and friends learn that it has none", () => {
    const before = new RegistryLab();
    const [a, b] = [before.join(1, { public: true }), before.join(2, { listen_addr: "" })];
    b.reportTrust(a);
    a.reportTrust(b);
    before.pass(SILENCE_MS / 2);
    expect(b.heartbeat()["type"]).toBe("heartbeat_ok");
    expect(b.resolve(a)["type"]).toBe("resolve_ok");
    expect(a.resolve(b)).toMatchObject({ type: "resolve_ok", real_addr: "", public_key: b.key });
    expect(a.ask({ type: "lookup", node_id: 2 })).not.toHaveProperty("real_addr");

    b.signed("deregister", signedText.deregister(b.node));
    expect(a.resolve(b)).toEqual(REFUSED);
    expect(b.heartbeat()).toEqual({ type: "error", error: "node 2: node not found" });
    const restarted = new RegistryLab({ store: before.store });
    expect(restarted.join(1).resolve(b)).toEqual(REFUSED); // deregistered, for all that the store can tell
    restarted.join(2, { listen_addr: "" });
    expect(restarted.join(1).resolve(b)["type"]).toBe("resolve_ok");
  });

  test("after a restart stored endpoints count as live for one period", () => {
    const before = new RegistryLab();
    before.join(1, { public: true });
    const lab = new RegistryLab({ store: before.store });
    const b = lab.join(2);
    expect(b.resolve(1)["type"]).toBe("resolve_ok");
    lab.pass(SILENCE_MS);
    b.register();
    expect(b.resolve(1)).toEqual(REFUSED);
  });
});

describe("privacy", () => {
  test("unknown, private and silent targets are refused with one text", () => {
    const lab = new RegistryLab();
    const a = lab.join(1);
    const b = lab.join(2);
    expect([a.resolve(b), a.resolve(99)]).toEqual([REFUSED, REFUSED]);
    const named = (name: string) => a.ask({ type: "resolve_hostname", hostname: name, requester_id: a.node });
    lab.join(3, { hostname: "hidden" });
    expect(named("hidden")).toEqual({ type: "error", error: 'hostname "hidden" not found' });
    expect(named("absent")).toEqual({ type: "error", error: 'hostname "absent" not found' });
  });

  test("a public node is resolved by all, a private one by pairs and members of a common network", () => {
    const lab = new RegistryLab();
    const [a, b, c] = [lab.join(1), lab.join(2), lab.join(3, { public: true })];
    expect(a.resolve(c)).toMatchObject({ real_addr: "198.51.100.3:4000", public_key: c.key });
    expect(a.resolve(b)).toEqual(REFUSED);
    lab.store.addMember(networkId(7), a.node);
    expect(a.resolve(b)).toEqual(REFUSED);
    lab.store.addMember(networkId(7), b.node);
    expect(a.resolve(b)).toMatchObject({ real_addr: "198.51.100.2:4000" });
    expect(a.ask({ type: "check_trust", node_id: 1, peer_id: 2 })).toMatchObject({ trusted: true });
  });

  test("resolve needs the requester's own signature", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2, { public: true })];
    const forged = { type: "resolve", node_id: 2, requester_id: 1, signature: b.sign("resolve:1:2") };
    expect(b.ask(forged)).toEqual(REFUSED);
    expect(a.ask({ type: "resolve", node_id: 2, requester_id: 1 })).toMatchObject({
      error: "signature required for authenticated node",
    });
  });

  test("the name and tags of a private node are told to those it trusts or asked, and to nobody else", () => {
    const lab = new RegistryLab();
    const [a, b, c] = [lab.join(1, { hostname: "alpha" }), lab.join(2), lab.join(3)];
    a.signed("set_tags", signedText.setTags(a.node), { tags: ["gpu"] });
    const lookup = (by: Caller) =>
      by.ask({
        type: "lookup",
        node_id: 1,
        requester_id: by.node,
        signature: by.sign(signedText.lookup(by.node, a.node)),
      });
    expect(lookup(b)).not.toHaveProperty("hostname");
    a.requestHandshake(b);
    expect(lookup(b)).toMatchObject({ hostname: "alpha", tags: ["gpu"] });
    expect(lookup(b)).not.toHaveProperty("real_addr");
    expect(lookup(c)).not.toHaveProperty("hostname");
    const forged = { type: "lookup", node_id: 1, requester_id: 2, signature: c.sign("lookup:2:1") };
    expect(c.ask(forged)).toEqual(REFUSED);
  });

  test("punch gives endpoints only to one of the two, and only when it may locate the other", () => {
    const lab = new RegistryLab();
    const [a, b, c] = [lab.join(1), lab.join(2), lab.join(3)];
    const punch = (by: Caller) =>
      by.ask({ type: "punch", requester_id: by.node, node_a: 1, node_b: 2, signature: by.sign("punch:1:2") });
    expect(punch(a)).toEqual(REFUSED);
    a.reportTrust(b);
    b.reportTrust(a);
    expect(punch(a)).toMatchObject({ node_a_addr: "198.51.100.1:4000", node_b_addr: "198.51.100.2:4000" });
    expect(punch(c)).toEqual(REFUSED);
  });

  test("members of a network are listed to members", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1, { hostname: "alpha" }), lab.join(2)];
    lab.store.addMember(networkId(7), a.node);
    const list = (by: Caller) =>
      by.ask({ type: "list_nodes", network_id: 7, node_id: by.node, signature: by.sign(`list_nodes:${by.node}:7`) });
    expect(list(a)).toMatchObject({ nodes: [{ node_id: 1, hostname: "alpha", public: false }] });
    expect(list(b)).toEqual(REFUSED);
  });
});

describe("trust", () => {
  const trusted = (a: Caller, b: Caller) =>
    a.lab.ask({ type: "check_trust", node_id: a.node, peer_id: b.node })["trusted"];

  test("one side alone makes no pair, however often it reports", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    expect(a.reportTrust(b)).toEqual({ type: "report_trust_ok" });
    expect(a.reportTrust(b)).toEqual({ type: "report_trust_ok" });
    expect(a.respondHandshake(b, true)["type"]).toBe("respond_handshake_ok");
    expect(trusted(a, b)).toBe(false);
    expect(a.resolve(b)).toEqual(REFUSED);
    b.reportTrust(a);
    expect(trusted(a, b)).toBe(true);
    expect(a.resolve(b)["type"]).toBe("resolve_ok");
    expect(b.resolve(a)["type"]).toBe("resolve_ok");
  });

  test("a request and its acceptance are the two consents", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    a.requestHandshake(b);
    expect(trusted(a, b)).toBe(false);
    b.respondHandshake(a, true);
    expect(trusted(a, b)).toBe(true);
  });

  test("two requests in opposite directions make a pair", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    a.requestHandshake(b);
    b.requestHandshake(a);
    expect(trusted(a, b)).toBe(true);
  });

  test("a refusal ends the request: a later report of the refusing side alone makes no pair", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    a.requestHandshake(b);
    b.respondHandshake(a, false);
    expect(a.poll()["responses"]).toMatchObject([{ from_node_id: 2, accept: false }]);
    b.reportTrust(a);
    expect(trusted(a, b)).toBe(false);
  });

  test("either side revokes, and only that side's new consent restores", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    a.reportTrust(b);
    b.reportTrust(a);
    expect(b.revokeTrust(a)).toEqual({ type: "revoke_trust_ok" });
    expect(b.revokeTrust(a)).toEqual(REFUSED);
    a.reportTrust(b);
    expect(trusted(a, b)).toBe(false);
    b.reportTrust(a);
    expect(trusted(a, b)).toBe(true);
  });

  test("an approval that still waits when its asker revokes is never delivered", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    a.requestHandshake(b);
    b.poll();
    b.respondHandshake(a, true);
    a.revokeTrust(b);
    expect(a.poll()).toMatchObject({ responses: [] });
    b.respondHandshake(a, true); // late, or replayed
    expect(a.poll()).toMatchObject({ responses: [] });
    expect(trusted(a, b)).toBe(false);
  });

  test("a revocation leaves the other side's request, which may have been made in knowledge of it, and a refusal does not", () => {
    const lab = new RegistryLab(); // found by simulation, seed 41145 with 3 nodes
    const [a, b] = [lab.join(1), lab.join(2)];
    b.reportTrust(a);
    a.requestHandshake(b);
    b.revokeTrust(a);
    b.conversation = new Conversation("198.51.100.2");
    expect(b.poll()["requests"]).toMatchObject([{ from_node_id: 1 }]);
    b.conversation = new Conversation("198.51.100.2");
    b.respondHandshake(a, false);
    expect(b.poll()["requests"]).toEqual([]);
  });

  test("an acceptance that nobody asked for is not delivered", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    expect(b.respondHandshake(a, true)).toMatchObject({ type: "respond_handshake_ok" });
    expect(a.poll()).toMatchObject({ requests: [], responses: [] });
    expect(lab.notices()).toEqual([]);
  });

  test("nobody trusts himself or a node that does not exist", () => {
    const lab = new RegistryLab();
    const a = lab.join(1);
    expect(a.reportTrust(a)).toEqual(REFUSED);
    const ghost = new Caller(lab, 9);
    ghost.node = 9 as typeof ghost.node;
    expect(a.reportTrust(ghost)).toEqual({ type: "error", error: "node 9: node not found" });
  });
});

describe("handshake inbox", () => {
  test("what a poll returned is returned again on another connection, until this one shows that it was read", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    a.requestHandshake(b, "let me in");
    const request = { from_node_id: 1, justification: "let me in", timestamp: 1_800_000_000, public_key: a.key };
    expect(b.poll()["requests"]).toEqual([request]);
    b.conversation = new Conversation("198.51.100.2"); // the reply was lost with its connection
    expect(b.poll()["requests"]).toEqual([request]);
    b.heartbeat();
    expect(b.poll()["requests"]).toEqual([]);
  });

  test("what arrives between a poll and its confirmation is kept", () => {
    const lab = new RegistryLab();
    const [a, b, c] = [lab.join(1), lab.join(2), lab.join(3)];
    a.requestHandshake(c);
    c.poll();
    b.requestHandshake(c);
    expect(c.poll()["requests"]).toMatchObject([{ from_node_id: 2 }]);
  });

  test("at most a hundred requests wait, and one per sender", () => {
    const lab = new RegistryLab();
    const target = lab.join(200);
    for (let seed = 1; seed <= 100; seed++) expect(lab.join(seed).requestHandshake(target)["status"]).toBe("delivered");
    expect(lab.join(101).requestHandshake(target)).toMatchObject({ error: expect.stringContaining("rate limited") });
    expect(new Caller(lab, 1).register()).toMatchObject({ node_id: 2 });
    const again = new Caller(lab, 1);
    again.register();
    expect(again.requestHandshake(target)).toEqual({
      type: "error",
      error: "handshake request already pending from node 2",
    });
    expect(target.poll()["requests"]).toHaveLength(100);
  });

  test("a justification of more than 1024 characters is refused", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    expect(a.requestHandshake(b, "x".repeat(1025))["type"]).toBe("error");
    expect(a.requestHandshake(b, "x".repeat(1024))["type"]).toBe("request_handshake_ok");
  });

  test("the beacon is asked to notify whoever something waits for", () => {
    const lab = new RegistryLab();
    const [a, b] = [lab.join(1), lab.join(2)];
    a.requestHandshake(b);
    expect(lab.notices()).toEqual([2]);
    b.respondHandshake(a, true);
    expect(lab.notices()).toEqual([1]);
  });
});

describe("odd requests", () => {
  test.each([
    ["no JSON", "{"],
    ["no object", "[1]"],
    ["no type", "{}"],
    ["a type that is no text", '{"type":{}}'],
    ["an inherited name for a type", '{"type":"constructor"}'],
    ["an unknown type", '{"type":"no_such"}'],
    ["a node number that is no number", '{"type":"lookup","node_id":"1"}'],
    ["a fractional node number", '{"type":"lookup","node_id":1.5}'],
    ["node 0", '{"type":"lookup","node_id":0}'],
    ["deep nesting", `{"type":"lookup","node_id":${"[".repeat(50_000)}${"]".repeat(50_000)}}`],
  ])("%s gets the protocol's error", (_name, text) => {
    expect(new RegistryLab().ask(text)).toEqual(REFUSED);
  });

  test("a source that asks too fast is told so and marked, others are served", () => {
    const lab = new RegistryLab({ limits: { requests: { perSecond: 1, burst: 1 } } });
    const [fast, other] = [new Conversation("203.0.113.1"), new Conversation("203.0.113.2")];
    const lookup = { type: "lookup", node_id: 5 };
    lab.ask(lookup, fast);
    expect(lab.ask(lookup, fast)).toEqual({ type: "error", error: "rate limited" });
    expect(fast.isThrottled).toBe(true);
    expect(lab.ask(lookup, other)).toMatchObject({ error: "node 5: node not found" });
    expect(lab.ask(lookup, new Conversation("203.0.113.1"))).toMatchObject({ error: "rate limited" });
  });

  test("a long request uses up as much as many short ones", () => {
    const lab = new RegistryLab({ limits: { requests: { perSecond: 1, burst: 100 } } });
    const source = new Conversation("203.0.113.1");
    expect(lab.ask({ type: "lookup", padding: "x".repeat(300_000) }, source)).toEqual(REFUSED);
    expect(lab.ask({ type: "lookup", padding: "x".repeat(300_000) }, source)).toMatchObject({ error: "rate limited" });
  });

  test("all of an IPv6 /64 is one source", () => {
    const lab = new RegistryLab({ limits: { requests: { perSecond: 1, burst: 1 } } });
    lab.ask("{}", new Conversation("2001:db8:1:2::1"));
    expect(lab.ask("{}", new Conversation("2001:db8:1:2:ffff::9"))).toMatchObject({ error: "rate limited" });
    expect(lab.ask("{}", new Conversation("2001:db8:1:3::1"))).toEqual(REFUSED);
  });

  test("a beacon is listed for a minute, from its own address or with the admin's token", () => {
    const lab = new RegistryLab({ adminToken: "s3cret" });
    const announce = (addr: string, fields: object = {}) =>
      lab.ask({ type: "beacon_register", beacon_id: 1, addr, ...fields });
    expect(announce("203.0.113.50:9001")).toEqual(REFUSED);
    expect(announce("203.0.113.50:9001", { admin_token: "wrong" })).toEqual(REFUSED);
    expect(announce("203.0.113.50:9001", { admin_token: "s3cret" })).toMatchObject({ beacon_id: 1 });
    expect(lab.ask({ type: "beacon_list" })).toMatchObject({ beacons: [{ id: 1, addr: "203.0.113.50:9001" }] });
    lab.pass(60_000);
    expect(lab.ask({ type: "beacon_list" })).toMatchObject({ beacons: [] });
    expect(announce("198.51.100.1:9001")).toMatchObject({ type: "beacon_register_ok" });
  });
});
