/** What is said outside of any stream, and the trust handshake on its own: the rules that keep older daemons from looping. */
import { describe, expect, it } from "vitest";
import { fromUtf8, writeU32 } from "../../src/base/bytes.ts";
import { crc32 } from "../../src/base/crc32.ts";
import type { StreamPacket } from "../../src/stream/stream-packet.ts";
import { networkId } from "../../src/wire/ids.ts";
import { encodeVirtualPacket, FLAG, PORT, PROTOCOL, type VirtualPacket } from "../../src/wire/virtual-packet.ts";
import { commands, learned, pair, restartAsPlain } from "../helpers/plain-pair.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

/** b says this to a, sealed as everything it says; `change` spoils the bytes before. */
function say(from: SimNode, to: SimNode, packet: Partial<VirtualPacket>, change?: (bytes: Uint8Array) => void): void {
  const bytes = encodeVirtualPacket({
    flags: 0,
    protocol: PROTOCOL.CONTROL,
    source: { network: networkId(0), node: from.node },
    destination: { network: networkId(0), node: to.node },
    sourcePort: 5_000,
    destinationPort: 0,
    sequence: 7,
    acknowledgement: 0,
    window: 0,
    payload: new Uint8Array(3),
    ...packet,
  });
  change?.(bytes);
  from.command((engine) => engine.link(to.node)!.sendVirtual(bytes));
}

function agents() {
  const all = pair();
  learned(all);
  all.network.run(5_000);
  return all;
}

/** How many datagrams leave a for b within a second. */
function answers({ network, a, b }: ReturnType<typeof agents>, act: () => void): number {
  const sent = () =>
    network.captured.filter(({ from, to }) => from === a.endpoint && to.address === b.endpoint.address);
  const before = sent().length;
  act();
  network.run(1_000);
  return sent().length - before;
}

describe("a control packet", () => {
  it("that asks is answered, once", () => {
    const all = agents();
    expect(answers(all, () => say(all.b, all.a, {}))).toBe(1);
  });

  it("with the ACK flag is never answered, whatever its ports", () => {
    const all = agents();
    const { a, b } = all;
    for (const ports of [
      { sourcePort: 0, destinationPort: 0 },
      { sourcePort: 0, destinationPort: 5_000 },
      { sourcePort: 5_000, destinationPort: 0 },
    ]) {
      expect([ports, answers(all, () => say(b, a, { ...ports, flags: FLAG.ACK }))]).toEqual([ports, 0]);
    }
  });

  it("from port 0 is not answered: its sender would answer the answer", () => {
    const all = agents();
    expect(answers(all, () => say(all.b, all.a, { sourcePort: 0 }))).toBe(0);
  });

  it("to another port, or of an unknown protocol, goes nowhere", () => {
    const all = agents();
    expect(answers(all, () => say(all.b, all.a, { destinationPort: PORT.GOSSIP }))).toBe(0);
    expect(answers(all, () => say(all.b, all.a, { protocol: 9 }))).toBe(0);
    expect(all.a.engine.drops()["unhandled-virtual-packet"]).toBe(2);
  });
});

describe("a SYN", () => {
  const SYN = { protocol: PROTOCOL.STREAM, flags: FLAG.SYN, destinationPort: 80, payload: new Uint8Array(0) };

  it("of another version of the protocol is dropped and counted", () => {
    const { network, a, b } = agents();
    say(b, a, SYN, (bytes) => {
      bytes[0] = (2 << 4) | FLAG.SYN;
      writeU32(bytes, 30, 0);
      writeU32(bytes, 30, crc32(bytes)); // nothing but the version is wrong
    });
    network.run(100);
    expect(commands(a)).toEqual([]);
    expect(a.engine.drops()["bad-virtual-packet"]).toBe(1);
    say(b, a, SYN);
    network.run(100);
    expect(commands(a)).toHaveLength(1);
  });
});

describe("the trust handshake", () => {
  it("is one segment, and ends half a second later without waiting for a word", () => {
    const network = new SimNetwork(4);
    const [a, b] = [network.addNode("a"), network.addNode("b")];
    restartAsPlain(b);
    network.run(200);
    const said: { readonly at: number; readonly packet: StreamPacket }[] = [];
    const { plain } = a.engine;
    const send = plain.sendStreamPacket.bind(plain);
    Object.defineProperty(plain, "sendStreamPacket", {
      value: (...args: Parameters<typeof send>) => {
        said.push({ at: network.now, packet: { ...args[2], payload: args[2].payload.slice() } });
        send(...args);
      },
    });
    befriend(network, b, a); // a approves, and says so
    network.run(1_000);
    const { sourcePort } = said.find(({ packet }) => packet.payload.length > 0)!.packet;
    const stream = said.filter(({ packet }) => packet.sourcePort === sourcePort);
    const [data, ...others] = stream.filter(({ packet }) => packet.payload.length > 0);
    expect(others).toEqual([]);
    expect(data!.packet.destinationPort).toBe(PORT.HANDSHAKE);
    expect(JSON.parse(fromUtf8(data!.packet.payload)!)).toMatchObject({ type: "handshake_accept", node_id: a.node });
    const end = stream.find(({ packet }) => (packet.flags & FLAG.FIN) !== 0);
    expect(end!.at - data!.at).toBe(500);
  });

  it("that revokes counts as heard as soon as the agent has all of it and ends", () => {
    const { network, a, b } = agents();
    const isHeard = () => a.events.some((event) => event.kind === "revocation-acknowledged" && event.node === b.node);
    a.command((engine, now) => engine.introductions.revoke(b.node, now));
    expect(network.runUntil(isHeard, 1_000)).toBeLessThanOrEqual(5 * network.conditions.latencyMs);
    expect(b.book.stateOf(a.node)).toBe("revoked-by-peer");
  });
});
