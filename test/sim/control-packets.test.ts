/** What is said outside of any stream, and the trust handshake on its own: the rules that keep older daemons from looping. */
import { describe, expect, it } from "vitest";
import { fromUtf8, writeU32 } from "../../src/base/bytes.ts";
import { crc32 } from "../../src/base/crc32.ts";
import { networkId } from "../../src/wire/ids.ts";
import {
  encodeVirtualPacket,
  FLAG,
  PORT,
  PROTOCOL,
  parseVirtualPacket,
  type VirtualPacket,
} from "../../src/wire/virtual-packet.ts";
import { commands, learned, pair } from "../helpers/plain-pair.ts";
import type { SimNode } from "../helpers/sim-network.ts";

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

/** How many datagrams leave a within a second. */
function answers({ network, a }: ReturnType<typeof agents>, act: () => void): number {
  const before = network.captured.filter(({ from }) => from === a.endpoint).length;
  act();
  network.run(1_000);
  return network.captured.filter(({ from }) => from === a.endpoint).length - before;
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
    const { network, a, b } = agents();
    network.registryIsUp = false;
    const said: VirtualPacket[] = [];
    const { plain } = b.engine;
    const send = plain.sendStreamPacket.bind(plain);
    Object.defineProperty(plain, "sendStreamPacket", {
      value: (...args: Parameters<typeof send>) => {
        said.push(parseVirtualPacket(args[1].slice(), true)!);
        send(...args);
      },
    });
    b.command((engine, now) => engine.introductions.revoke(a.node, now));
    network.run(450);
    const data = said.filter(({ payload }) => payload.length > 0);
    expect(data).toHaveLength(1);
    expect(data[0]!.destinationPort).toBe(PORT.HANDSHAKE);
    expect(JSON.parse(fromUtf8(data[0]!.payload)!)).toMatchObject({ type: "handshake_revoke", node_id: b.node });
    expect(said.some(({ flags }) => (flags & FLAG.FIN) !== 0)).toBe(false);
    network.run(200);
    expect(said.some(({ flags }) => (flags & FLAG.FIN) !== 0)).toBe(true);
  });
});
