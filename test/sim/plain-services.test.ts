/** What a plain agent finds on a pilot-tun where no local program listens: echo, names, the trust handshake, and nothing else. */
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { formatPilotAddress } from "../../src/wire/address.ts";
import { networkId } from "../../src/wire/ids.ts";
import { PORT } from "../../src/wire/virtual-packet.ts";
import { TCP } from "../helpers/inner-packets.ts";
import { accept, commands, flagsOf, learned, type Pair, pair, syn, tell, textTo } from "../helpers/plain-pair.ts";
import { ADMIN_TOKEN, type SimNode } from "../helpers/sim-network.ts";
import { setPolicy } from "../helpers/sim-policy.ts";

function agents(): Pair {
  const all = pair();
  learned(all);
  return all;
}

/** A program on the agent connects to a port of ours on which no program listens; the connection's id at the agent. */
function connectTo({ network, a, b }: Pair, port: number, sourcePort = 40_000): number {
  b.sendPacket(syn(b, a, sourcePort, 0, port));
  network.run(50);
  const [asked] = commands(a);
  if (asked?.kind !== "connect") throw new Error("no local server was asked");
  tell(a, { kind: "refused", id: asked.id });
  network.run(50);
  return accept(b, a);
}

function send(node: SimNode, id: number, text: string): void {
  tell(node, { kind: "data", id, bytes: new TextEncoder().encode(text) });
}

function lockDown(node: SimNode, since: WallClock): void {
  node.command((engine, now) => engine.admission.setLockdown({ except: [], since, until: undefined }, now));
}

/** One question to the nameserver, its answer, and that the connection ended behind it. */
function ask(all: Pair, question: string, sourcePort: number): string {
  const id = connectTo(all, PORT.NAMESERVER, sourcePort);
  send(all.b, id, question);
  all.network.run(1_000);
  const said = commands(all.b);
  expect(said).toContainEqual({ kind: "end", id });
  return textTo(id, said);
}

describe("the echo port", () => {
  it("gives every byte back, and ends when the agent has ended", () => {
    const all = agents();
    const { network, b } = all;
    const id = connectTo(all, PORT.ECHO);
    for (const text of ["hello", "again"]) {
      send(b, id, text);
      network.run(100);
      expect(textTo(id, commands(b))).toBe(text);
    }
    send(b, id, "x".repeat(100_000));
    tell(b, { kind: "ended", id });
    network.run(2_000);
    const said = commands(b);
    expect(textTo(id, said)).toHaveLength(100_000);
    expect(said.at(-1)).toEqual({ kind: "end", id });
  });

  it("is a local program's if there is one", () => {
    const { network, a, b } = agents();
    b.sendPacket(syn(b, a, 40_000, 0, PORT.ECHO));
    network.run(50);
    const [asked] = commands(a);
    tell(a, { kind: "connected", id: asked!.id });
    network.run(50);
    const id = accept(b, a);
    send(b, id, "hello");
    network.run(100);
    expect(textTo(asked!.id, commands(a))).toBe("hello");
    expect(commands(b)).toEqual([]);
  });

  it.each([
    ["when trust is revoked", ({ a, b }: Pair) => a.command((engine, now) => engine.introductions.revoke(b.node, now))],
    ["when the policy forbids it", ({ a }: Pair) => a.command((engine, now) => engine.admission.replaceRules([], now))],
    ["in a lockdown", ({ a, network }: Pair) => lockDown(a, network.wall)],
  ])("resets its streams at once %s", (_, act) => {
    const all = agents();
    const { network, b } = all;
    const id = connectTo(all, PORT.ECHO);
    send(b, id, "hello");
    network.run(100);
    commands(b);
    act(all);
    network.run(2 * network.conditions.latencyMs);
    expect(commands(b)).toEqual([{ kind: "reset", id }]);
  });

  it("is open to nobody whom the policy keeps out", () => {
    const { network, a, b } = agents();
    setPolicy(network, a, "allow in tcp 80 from trusted");
    b.sendPacket(syn(b, a, 40_000, 0, PORT.ECHO));
    network.run(50);
    expect(commands(a)).toEqual([]);
    expect(flagsOf(b.takeTunPackets()[0])).toBe(TCP.RST | TCP.ACK);
  });
});

describe("the nameserver port", () => {
  it("answers for this node's own name and for no other", () => {
    const all = agents();
    const own = formatPilotAddress({ network: networkId(0), node: all.a.node });
    expect(ask(all, "QUERY A a", 40_001)).toBe(`A a ${own}\n`);
    expect(ask(all, "QUERY A a\n", 40_002)).toBe(`A a ${own}\n`);
    expect(ask(all, "QUERY A b", 40_003)).toBe("ERR not found\n");
  });

  it("answers for a network that both are in, and for no other", () => {
    const all = agents();
    const { network, a, b } = all;
    const create = { kind: "create-network", name: "ops", joinRule: "open", adminToken: ADMIN_TOKEN } as const;
    a.command((engine, now) => engine.networks.request(create, now));
    network.run(4_000);
    expect(ask(all, "QUERY N ops", 40_001)).toBe("ERR not found\n");
    b.command((engine, now) => engine.networks.request({ kind: "join-network", network: networkId(1) }, now));
    network.run(100);
    a.client.lookup(b.node);
    a.command(() => undefined);
    network.run(100);
    expect(ask(all, "QUERY N ops", 40_002)).toBe("N ops 1\n");
    expect(ask(all, "QUERY N backbone", 40_003)).toBe("ERR not found\n");
    expect(ask(all, "QUERY S 1 80", 40_004)).toBe("S\n");
  });

  it("takes no registrations, and says so of whatever it does not understand", () => {
    const all = agents();
    const questions = ["REGISTER A x 0:0000.0000.0001", "QUERY", "QUERY X y", "QUERY A a b", "\xff\xfe", " "];
    questions.forEach((question, index) => {
      expect(ask(all, question, 40_010 + index)).toMatch(/^ERR [a-zA-Z<>, ]+\n$/);
    });
  });
});

describe("other ports", () => {
  it("are those of local servers, and refuse where none listens", () => {
    const all = agents();
    const { network, a, b } = all;
    for (const port of [PORT.SECURE, PORT.STDIO, PORT.DATA_EXCHANGE, PORT.EVENT_STREAM, PORT.TASK_SUBMIT]) {
      b.sendPacket(syn(b, a, 40_000, 0, port));
      network.run(50);
      const [asked] = commands(a);
      tell(a, { kind: "refused", id: asked!.id });
      network.run(50);
      expect([port, flagsOf(b.takeTunPackets()[0])]).toEqual([port, TCP.RST | TCP.ACK]);
    }
  });
});

describe("the handshake port", () => {
  it("is the daemon's own: no local program is asked, and a word on it counts", () => {
    const { network, a, b } = agents();
    b.sendPacket(syn(b, a, 40_000, 0, PORT.HANDSHAKE));
    network.run(50);
    expect(commands(a)).toEqual([]);
    accept(b, a);
    network.registryIsUp = false; // by no other way can the word come
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(1_000);
    expect(a.book.stateOf(b.node)).toBe("revoked-by-peer");
  });
});
