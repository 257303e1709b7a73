import { describe, expect, test } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { RegistryClient } from "../../src/registry/client.ts";
import type { RegistryEvent } from "../../src/registry/events.ts";
import { Conversation } from "../../src/rendezvous/request-context.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { crypto, RegistryLab, type Reply } from "../helpers/registry-caller.ts";

type Respond = (request: Reply) => string | object | undefined;

/** A client against a registry that the test scripts, or against the real rules. */
class Desk {
  readonly client: RegistryClient;
  readonly lab: RegistryLab;
  readonly requests: Reply[] = [];
  readonly events: RegistryEvent[] = [];
  conversation: Conversation;
  now = instant(1000);
  /** Answers in place of the registry; undefined leaves it to the real rules, the text "silence" is no answer. */
  respond: Respond = () => undefined;

  constructor(
    seed: number,
    lab = new RegistryLab(),
    options: { hostname?: string; isPublic?: boolean; tags?: readonly string[] } = {},
  ) {
    this.lab = lab;
    this.conversation = new Conversation(`198.51.100.${seed}`);
    const seedBytes = new Uint8Array(32).fill(seed);
    this.client = new RegistryClient({
      crypto,
      identity: { seed: seedBytes, publicKey: crypto.ed25519PublicKey(seedBytes) },
      listen: { port: 4000, lan: [{ address: "192.168.1.5", port: 4000 }] },
      isPublic: options.isPublic ?? false,
      hostname: options.hostname,
      tags: options.tags,
    });
  }

  connect(): this {
    this.client.handleConnecting(this.now);
    this.client.handleConnected(this.now);
    return this.settle();
  }

  disconnect(): this {
    this.client.handleDisconnected(this.now, "cut");
    return this.settle();
  }

  /** Exchanges requests and replies until the client has nothing to say. */
  settle(): this {
    for (let round = 0; round < 100; round++) {
      const text = this.client.pollRequest();
      this.#drainEvents();
      if (text === undefined) return this;
      const request = JSON.parse(text) as Reply;
      this.requests.push(request);
      const scripted = this.respond(request);
      if (scripted === "silence") return this;
      const reply =
        typeof scripted === "string" ? scripted : JSON.stringify(scripted ?? this.lab.ask(request, this.conversation));
      this.client.handleReply(reply, this.now);
      this.#drainEvents();
    }
    throw new Error("the client never stops asking");
  }

  /** Lets time pass, waking the client at its deadlines. */
  pass(ms: number): this {
    const end = this.now + ms;
    for (;;) {
      const deadline = this.client.pollTimeout();
      if (deadline === undefined || deadline.at > end) break;
      this.#to(Math.max(deadline.at, this.now));
      this.client.handleTimeout(this.now);
      this.settle();
      if (this.client.wantsDisconnect) break;
    }
    this.#to(end);
    return this;
  }

  types(): unknown[] {
    return this.requests.splice(0).map((request) => request["type"]);
  }

  take(kind: RegistryEvent["kind"]): RegistryEvent[] {
    const taken = this.events.filter((event) => event.kind === kind);
    this.events.splice(0, this.events.length, ...this.events.filter((event) => event.kind !== kind));
    return taken;
  }

  #to(ms: number): void {
    this.lab.pass(ms - this.now);
    this.now = instant(ms);
  }

  #drainEvents(): void {
    for (let event = this.client.pollEvent(); event !== undefined; event = this.client.pollEvent()) {
      this.events.push(event);
    }
  }
}

const ok = (type: string, fields: object = {}) => ({ type: `${type}_ok`, ...fields });
const error = (text: string) => ({ type: "error", error: text });

test("an endpoint of a relay-only peer is not wanted, though a registry may name it", () => {
  const desk = new Desk(1, new RegistryLab());
  const where = { real_addr: "203.0.113.7:4000", lan_addrs: ["10.0.0.7:4000"], relay_only: true };
  desk.respond = (request) =>
    request["type"] === "resolve" ? { type: "resolve_ok", node_id: request["node_id"], ...where } : undefined;
  desk.connect();
  desk.client.resolve(nodeId(9));
  desk.settle();
  expect(desk.take("resolved")).toEqual([{ kind: "resolved", node: 9, endpoint: undefined, lanEndpoints: [] }]);
});

describe("registration", () => {
  test("comes first after every connect, signed, with what the node is", () => {
    const desk = new Desk(1, new RegistryLab(), { hostname: "alpha" }).connect();
    expect(desk.requests[0]).toMatchObject({
      type: "register",
      listen_addr: "0.0.0.0:4000",
      hostname: "alpha",
      lan_addrs: ["192.168.1.5:4000"],
      public: false,
    });
    expect(desk.requests[0]).not.toHaveProperty("owner");
    expect(desk.take("registered")).toEqual([
      {
        kind: "registered",
        node: 1,
        address: { network: 0, node: 1 },
        hostname: "alpha",
        observed: { address: "198.51.100.1", port: 4000 },
      },
    ]);
    expect(desk.types()).toEqual(["register", "poll_handshakes", "set_visibility"]);
    desk.disconnect().connect();
    expect(desk.types()).toEqual(["register", "poll_handshakes"]);
    expect(desk.take("state").map((event) => event.kind === "state" && event.state)).toEqual([
      "connecting",
      "registering",
      "ok",
      "down",
      "connecting",
      "registering",
      "ok",
    ]);
  });

  test("is followed by the tags, which others see from then on, and not where none were given", () => {
    const lab = new RegistryLab();
    const desk = new Desk(1, lab, { isPublic: true, tags: ["web", "db"] }).connect();
    expect(desk.types()).toContain("set_tags");
    const tagsSeen = () =>
      (lab.ask({ type: "lookup", node_id: desk.client.node! }, desk.conversation) as Reply)["tags"];
    expect(tagsSeen()).toEqual(["web", "db"]);
    desk.client.setTags(["web"]);
    desk.settle();
    expect(tagsSeen()).toEqual(["web"]);
    desk.disconnect().connect();
    expect(desk.requests.filter(({ type }) => type === "set_tags").at(-1)).toMatchObject({ tags: ["web"] });
    expect(new Desk(2, lab).connect().types()).not.toContain("set_tags");
  });

  test("that is refused is repeated after a growing while, and queries do not wait for it", () => {
    const desk = new Desk(1);
    desk.respond = () => error("request failed");
    desk.connect();
    desk.client.lookup(nodeId(5));
    desk.pass(70_000);
    expect(desk.types().length).toBeGreaterThan(5);
    expect(desk.client.state).toBe("registering");
    expect(desk.client.stateError).toBe("request failed");
    expect(desk.take("looked-up")).toMatchObject([{ node: 5, result: undefined, error: "request failed" }]);
    desk.respond = () => undefined;
    expect(desk.pass(40_000).client.state).toBe("ok");
  });

  test("is repeated when the endpoint is news, and only then", () => {
    const desk = new Desk(1).connect();
    desk.types();
    const lan = [{ address: "192.168.1.5", port: 4000 }];
    desk.client.setListen({ port: 4000, lan });
    desk.settle();
    expect(desk.types()).toEqual([]);
    desk.client.setListen({ port: 4000, lan, observed: { address: "203.0.113.1", port: 7777 } });
    desk.settle();
    expect(desk.requests[0]).toMatchObject({ type: "register", listen_addr: "203.0.113.1:7777" });
  });

  test("that was on its way when the endpoint became known is followed by another", () => {
    const desk = new Desk(1);
    const observed = { address: "203.0.113.1", port: 7777 };
    let isFirst = true;
    desk.respond = () => {
      if (isFirst) desk.client.setListen({ port: 4000, lan: [], observed });
      isFirst = false;
      return undefined;
    };
    desk.connect();
    const told = desk.requests.filter((request) => request["type"] === "register");
    expect(told.map((request) => request["listen_addr"])).toEqual(["0.0.0.0:4000", "203.0.113.1:7777"]);
  });

  test("an answer without a node number is no registration", () => {
    const desk = new Desk(1);
    desk.respond = () => ok("register", { node_id: "1" });
    desk.connect();
    expect(desk.client.state).toBe("registering");
    expect(desk.take("registered")).toEqual([]);
  });
});

describe("staying registered", () => {
  test("a heartbeat and a handshake poll every 30 s", () => {
    const desk = new Desk(1).connect();
    desk.types();
    desk.pass(95_000);
    expect(desk.types().sort()).toEqual([
      ...Array.from({ length: 3 }, () => "heartbeat"),
      ...Array.from({ length: 3 }, () => "poll_handshakes"),
    ]);
  });

  test("three failed heartbeats in a row register again, two do not", () => {
    const desk = new Desk(1).connect();
    desk.respond = (request) => (request["type"] === "heartbeat" ? error("request failed") : undefined);
    desk.types();
    desk.pass(65_000);
    expect(desk.types()).not.toContain("register");
    desk.pass(30_000);
    expect(desk.types()).toContain("register");
  });

  test("a registry that forgot us is registered with at once", () => {
    const desk = new Desk(1).connect();
    desk.types();
    desk.lab.pass(10 * 60_000);
    desk.pass(31_000);
    expect(desk.types()).toContain("register");
    expect(desk.client.state).toBe("ok");
  });

  test("a registry that never knows us is not asked in a tight loop", () => {
    const desk = new Desk(1);
    desk.respond = (request) => (request["type"] === "report_trust" ? error("node 1: node not found") : undefined);
    desk.connect();
    desk.client.reportTrust(nodeId(9));
    desk.settle().pass(60_000);
    expect(desk.types().filter((type) => type === "register").length).toBeLessThan(15);
  });

  test("a reply that does not come ends the connection, and the late reply is not taken for another", () => {
    const desk = new Desk(1).connect();
    desk.respond = () => "silence";
    desk.client.reportTrust(nodeId(9));
    desk.settle().pass(9999);
    expect(desk.client.wantsDisconnect).toBe(false);
    desk.pass(1);
    expect(desk.client.wantsDisconnect).toBe(true);
    expect(desk.client.pollRequest()).toBeUndefined();
    desk.disconnect();
    expect(desk.client.wantsDisconnect).toBe(false);
  });

  test("a reply that nobody asked for ends the connection", () => {
    const desk = new Desk(1).connect();
    desk.client.handleReply('{"type":"resolve_ok"}', desk.now);
    expect(desk.client.wantsDisconnect).toBe(true);
  });

  test("after deregistering nothing more is said, on this connection or a later one", () => {
    const desk = new Desk(1).connect();
    desk.client.deregister();
    desk.settle();
    desk.types();
    desk.pass(120_000);
    expect(desk.types()).toEqual([]);
    expect(desk.client).toMatchObject({ state: "registering", stateError: expect.stringContaining("deregistered") });
    expect(desk.disconnect().connect().pass(120_000).types()).toEqual([]);
  });
});

describe("a rotation of the node's key", () => {
  const next = { seed: new Uint8Array(32).fill(77), publicKey: crypto.ed25519PublicKey(new Uint8Array(32).fill(77)) };
  const keyAt = (desk: Desk) => desk.lab.store.nodeById(nodeId(1))?.publicKey;

  test("is signed by the old key, and everything after it by the new", () => {
    const desk = new Desk(1).connect();
    const before = keyAt(desk);
    desk.client.rotateKey(next);
    desk.settle();
    expect(desk.take("key-rotated")).toEqual([{ kind: "key-rotated", identity: next }]);
    expect(keyAt(desk)).toEqual(next.publicKey);
    expect(keyAt(desk)).not.toEqual(before);
    desk.types();
    expect(desk.pass(40_000).types()).toContain("heartbeat");
    expect(desk.client.state).toBe("ok");
    desk.disconnect().connect();
    expect(desk.client).toMatchObject({ state: "ok", node: 1 });
    expect(desk.lab.store.nodeCount()).toBe(1);
  });

  test("that is refused changes nothing", () => {
    const desk = new Desk(1).connect();
    desk.respond = (request) => (request["type"] === "rotate_key" ? error("request failed") : undefined);
    desk.client.rotateKey(next);
    desk.settle();
    expect(desk.take("key-kept")).toEqual([{ kind: "key-kept", error: "request failed" }]);
    expect(desk.pass(40_000).client.state).toBe("ok");
  });

  test.each([
    ["before the registry heard of it", false, "key-kept"],
    ["after the registry had made it", true, "key-rotated"],
  ] as const)("whose connection ends %s is settled by a lookup before the node registers", (_, isMade, outcome) => {
    const desk = new Desk(1).connect();
    desk.respond = (request) => {
      if (request["type"] !== "rotate_key") return undefined;
      if (isMade) desk.lab.ask(request, desk.conversation);
      return "silence";
    };
    desk.client.rotateKey(next);
    desk.settle();
    desk.types();
    desk.disconnect().connect();
    expect(desk.types().slice(0, 2)).toEqual(["lookup", "register"]);
    expect(desk.events.filter(({ kind }) => kind.startsWith("key-"))).toMatchObject([{ kind: outcome }]);
    expect(desk.client).toMatchObject({ state: "ok", node: 1 });
    expect(desk.lab.store.nodeCount()).toBe(1); // a registration with the wrong key would have made another
  });

  test("stays open while the registry does not say, and the node does not register meanwhile", () => {
    const desk = new Desk(1).connect();
    desk.respond = (request) => (request["type"] === "rotate_key" ? "silence" : undefined);
    desk.client.rotateKey(next);
    desk.settle();
    desk.respond = (request) => (request["type"] === "lookup" ? error("request failed") : undefined);
    desk.types();
    desk.disconnect().connect();
    expect(desk.types()).toEqual(["lookup"]);
    expect(desk.client.wantsDisconnect).toBe(true);
    desk.respond = () => undefined;
    expect(desk.disconnect().connect().types().slice(0, 2)).toEqual(["lookup", "register"]);
  });

  test("is not begun without a registry, nor twice at once", () => {
    const desk = new Desk(1).connect();
    desk.respond = () => "silence";
    desk.client.rotateKey(next);
    desk.client.rotateKey(next);
    desk.disconnect();
    desk.client.rotateKey(next);
    desk.settle();
    expect(desk.take("key-kept").length).toBeGreaterThanOrEqual(2);
  });
});

describe("handshakes", () => {
  test("are polled every two seconds while an answer is expected, and at once when asked to", () => {
    const lab = new RegistryLab();
    const desk = new Desk(1, lab).connect();
    const peer = new Desk(2, lab).connect();
    desk.client.requestHandshake(nodeId(2), "hello");
    desk.client.expectHandshakes(instant(desk.now + 10_000));
    desk.settle();
    peer.client.pollHandshakes();
    peer.settle();
    const publicKey = crypto.ed25519PublicKey(new Uint8Array(32).fill(1));
    expect(peer.take("handshake-request")).toEqual([
      { kind: "handshake-request", from: 1, reason: "hello", at: lab.wall, publicKey },
    ]);
    peer.client.respondHandshake(nodeId(1), true);
    peer.settle();
    desk.pass(2000);
    expect(desk.take("handshake-response")).toEqual([
      { kind: "handshake-response", from: 2, accepted: true, at: lab.wall - 2000 },
    ]);
    desk.types();
    desk.pass(8000);
    expect(desk.types().filter((type) => type === "poll_handshakes")).toHaveLength(4);
    desk.pass(20_000);
    expect(desk.types().filter((type) => type === "poll_handshakes").length).toBeLessThanOrEqual(1);
    desk.client.resolve(nodeId(2));
    desk.settle();
    expect(desk.take("resolved")).toMatchObject([{ node: 2, endpoint: { address: "198.51.100.2", port: 4000 } }]);
  });

  test("a request that waits already counts as made", () => {
    const lab = new RegistryLab();
    const desk = new Desk(1, lab).connect();
    new Desk(2, lab).connect();
    for (let i = 0; i < 2; i++) {
      desk.client.requestHandshake(nodeId(2), "");
      desk.settle();
    }
    const done = desk.take("command-done").map((event) => event.kind === "command-done" && event.command.kind);
    expect(done.filter((kind) => kind === "request-handshake")).toHaveLength(2);
    expect(desk.take("command-failed")).toEqual([]);
  });

  test("malformed entries of a poll are left out, the others are read", () => {
    const desk = new Desk(1).connect();
    desk.respond = (request) =>
      request["type"] === "poll_handshakes"
        ? ok("poll_handshakes", {
            requests: [null, 7, { from_node_id: "x" }, { from_node_id: 5, justification: 9 }],
            responses: { length: 3 },
          })
        : undefined;
    desk.client.pollHandshakes();
    desk.settle();
    expect(desk.take("handshake-request")).toEqual([{ kind: "handshake-request", from: 5, reason: "", at: 0 }]);
    expect(desk.take("handshake-response")).toEqual([]);
  });
});

describe("commands", () => {
  test("queries fail at once without a registry, changes wait for it", () => {
    const desk = new Desk(1);
    desk.client.resolve(nodeId(2));
    desk.client.resolveHostname("beta");
    desk.client.lookup(nodeId(2));
    desk.client.reportTrust(nodeId(2));
    desk.client.revokeTrust(nodeId(3));
    desk.settle();
    expect(desk.take("resolved")).toMatchObject([{ node: 2, endpoint: undefined }]);
    expect(desk.take("hostname")).toMatchObject([{ name: "beta", node: undefined }]);
    expect(desk.take("looked-up")).toMatchObject([{ node: 2, result: undefined }]);
    desk.connect();
    expect(desk.types()).toEqual(["register", "poll_handshakes", "report_trust", "revoke_trust", "set_visibility"]);
  });

  test("a change whose reply was lost with the connection is sent again, a query fails", () => {
    const desk = new Desk(1).connect();
    desk.respond = () => "silence";
    desk.client.reportTrust(nodeId(2));
    desk.settle();
    desk.client.resolve(nodeId(3));
    desk.disconnect();
    expect(desk.take("resolved")).toMatchObject([{ node: 3, endpoint: undefined }]);
    desk.types();
    desk.respond = () => undefined;
    expect(desk.connect().types()).toContain("report_trust");
  });

  test("a revocation replaces a report that was not sent yet, and one whose reply was lost", () => {
    const desk = new Desk(1).connect();
    desk.respond = () => "silence";
    desk.client.reportTrust(nodeId(2));
    desk.settle();
    desk.client.revokeTrust(nodeId(2));
    desk.disconnect();
    desk.client.reportTrust(nodeId(3));
    desk.client.revokeTrust(nodeId(3));
    desk.types();
    desk.respond = () => undefined;
    expect(
      desk
        .connect()
        .types()
        .filter((type) => String(type).endsWith("_trust")),
    ).toEqual(["revoke_trust", "revoke_trust"]);
  });

  test("a revocation takes back what waits to be said of consent with the same peer, and no refusal", () => {
    const desk = new Desk(1);
    for (const node of [nodeId(2), nodeId(3)]) {
      desk.client.requestHandshake(node, "please");
      desk.client.respondHandshake(node, true);
    }
    desk.client.respondHandshake(nodeId(4), false);
    for (const node of [nodeId(2), nodeId(4)]) desk.client.revokeTrust(node);
    const said = desk.connect().types();
    expect(said.filter((type) => /handshake$|_trust$/.test(String(type)))).toEqual([
      "request_handshake",
      "respond_handshake",
      "respond_handshake",
      "revoke_trust",
      "revoke_trust",
    ]);
  });

  test("an approval whose reply was lost is not said again once it is taken back, else before what came after it", () => {
    for (const [isRevoked, expected] of [
      [true, ["revoke_trust"]],
      [false, ["respond_handshake", "request_handshake"]],
    ] as const) {
      const desk = new Desk(1).connect();
      desk.respond = () => "silence";
      desk.client.respondHandshake(nodeId(2), true);
      desk.settle();
      if (isRevoked) desk.client.revokeTrust(nodeId(2));
      else desk.client.requestHandshake(nodeId(3), "please");
      desk.disconnect();
      desk.types();
      desk.respond = () => undefined;
      const said = desk.connect().types();
      expect(said.filter((type) => /handshake$|_trust$/.test(String(type)))).toEqual(expected);
    }
  });

  test("a change that is rate limited is sent again a little later", () => {
    const desk = new Desk(1).connect();
    let refusals = 1;
    desk.respond = (request) =>
      request["type"] === "set_hostname" && refusals-- > 0 ? error("rate limited") : undefined;
    desk.client.setHostname("alpha");
    desk.settle();
    desk.types();
    desk.pass(2500);
    expect(desk.types()).toContain("set_hostname");
    expect(desk.take("command-failed")).toEqual([]);
  });

  test("a refused change is told with the registry's reason", () => {
    const desk = new Desk(1).connect();
    desk.client.setHostname("Not A Name");
    desk.settle();
    expect(desk.take("command-failed")).toMatchObject([
      { command: { kind: "set-hostname" }, error: "invalid hostname" },
    ]);
  });

  test("the same question is asked once, however many ask it", () => {
    const desk = new Desk(1).connect();
    desk.types();
    for (let i = 0; i < 5; i++) desk.client.lookup(nodeId(1));
    desk.settle();
    expect(desk.types()).toEqual(["lookup"]);
  });

  test("a full queue drops queries, never trust reports", () => {
    const desk = new Desk(1).connect();
    desk.respond = () => "silence";
    desk.client.lookup(nodeId(1));
    desk.settle();
    desk.client.reportTrust(nodeId(7));
    for (let node = 1; node <= 5000; node++) desk.client.resolve(nodeId(node));
    desk.settle();
    expect(desk.take("resolved")).toHaveLength(5000 - 4095);
    desk.disconnect();
    desk.respond = () => undefined;
    desk.types();
    expect(desk.connect().types()).toContain("report_trust");
  });
});

test("a node that registered without an address is reached through the beacon, which is no error", () => {
  const desk = new Desk(1).connect();
  desk.respond = (request) =>
    request["type"] === "resolve" ? ok("resolve", { node_id: 2, real_addr: "" }) : undefined;
  desk.client.resolve(nodeId(2));
  desk.settle();
  expect(desk.take("resolved")).toEqual([{ kind: "resolved", node: 2, endpoint: undefined, lanEndpoints: [] }]);
});

describe("a registry that lies", () => {
  const cases: [string, object | string][] = [
    ["answers about another node", ok("resolve", { node_id: 3, real_addr: "198.51.100.3:1" })],
    ["answers another question", ok("lookup", { node_id: 2 })],
    ["gives no address", ok("resolve", { node_id: 2 })],
    ["gives a host name for an address", ok("resolve", { node_id: 2, real_addr: "example.org:4000" })],
    ["gives a multicast address", ok("resolve", { node_id: 2, real_addr: "[ff02::1]:4000" })],
    ["gives port 0", ok("resolve", { node_id: 2, real_addr: "198.51.100.3:0" })],
    ["answers with something else than JSON", "\u0000\u0001"],
    ["answers with an array", "[]"],
  ];

  test.each(cases)("%s: the resolve fails", (_name, reply) => {
    const desk = new Desk(1).connect();
    desk.respond = (request) => (request["type"] === "resolve" ? reply : undefined);
    desk.client.resolve(nodeId(2));
    desk.settle();
    expect(desk.take("resolved")).toMatchObject([{ node: 2, endpoint: undefined, error: expect.any(String) }]);
  });

  test("a key of the wrong length is no key", () => {
    const desk = new Desk(1).connect();
    desk.respond = () => ok("lookup", { node_id: 2, public_key: "AAAA" });
    desk.client.lookup(nodeId(2));
    desk.settle();
    expect(desk.take("looked-up")).toMatchObject([{ node: 2, result: undefined, error: expect.any(String) }]);
  });
});
