/** Two engines, of which b is told to be a plain agent; the daemons' TCP sockets are played by the test. */
import { describe, expect, it } from "vitest";
import { transportChecksum } from "../../src/wire/checksum.ts";
import { encodeEcho, ICMPV6_TYPE, parseEcho } from "../../src/wire/icmpv6.ts";
import { parseUdpPacket } from "../../src/wire/udp.ts";
import { MAX_VIRTUAL_PAYLOAD_BYTES } from "../../src/wire/virtual-packet.ts";
import { bytesOf, cutPacket, TCP, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import {
  accept,
  bound,
  commands,
  connect,
  datagram,
  flagsOf,
  HELLOS_MS,
  icmp,
  LISTENER,
  learned,
  pair,
  portsOf,
  restartAsPlain,
  syn,
  tell,
  written,
} from "../helpers/plain-pair.ts";
import { befriend, SimNetwork, type SimNode } from "../helpers/sim-network.ts";

describe("a peer that is silent on the bridge port", () => {
  it("is plain after the hellos, and what was sent meanwhile arrives once, translated", () => {
    const all = pair();
    const { network, a, b } = all;
    expect(a.engine.linkFacts(b.node)?.kind).toBe("unknown");
    a.sendPacket(datagram(a, b, "early"));
    const tookMs = network.runUntil(() => a.engine.linkFacts(b.node)?.kind === "plain", HELLOS_MS);
    expect(tookMs).toBeLessThanOrEqual(3 * 2 * network.conditions.latencyMs); // a round trip for each hello
    expect(b.takeTunPackets()).toEqual([]);
    network.run(50);
    expect(b.takeTunPackets()).toEqual([datagram(a, b, "early")]);
    expect(a.events.some((event) => event.kind === "kinds-changed")).toBe(true);
  });

  it("is believed to be so at the next start, until it says hello", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.kill();
    a.start();
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    a.sendPacket(datagram(a, b, "at once"));
    network.run(30);
    expect(b.takeTunPackets()).toEqual([datagram(a, b, "at once")]);
    b.kill();
    b.plainOnly = false;
    b.start();
    network.runUntil(() => a.engine.linkFacts(b.node)?.kind === "pilot-tun", 20_000);
    a.sendPacket(datagram(a, b, "whole"));
    network.run(50);
    expect(b.takeTunPackets()).toEqual([datagram(a, b, "whole")]);
  });

  it("costs a pilot-tun nothing: packets go out whole while nobody knows what it is, and do not come again", () => {
    const network = new SimNetwork(2);
    const [a, b] = [network.addNode("a"), network.addNode("b")];
    network.run(200);
    befriend(network, a, b);
    a.kill();
    a.start();
    a.sendPacket(datagram(a, b, "first"));
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    expect(a.engine.linkFacts(b.node)?.kind).toBe("unknown");
    network.run(2 * network.conditions.latencyMs);
    expect(b.takeTunPackets()).toEqual([datagram(a, b, "first")]);
    network.run(10_000);
    expect(a.engine.linkFacts(b.node)?.kind).toBe("pilot-tun");
    expect(b.takeTunPackets()).toEqual([]);
  });
});

describe("datagrams and pings", () => {
  it("keep ports and bytes both ways; empty ones go nowhere", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.sendPacket(datagram(a, b, "one"));
    b.sendPacket(datagram(b, a, "two"));
    a.sendPacket(datagram(a, b, ""));
    network.run(50);
    const [got, ...others] = b.takeTunPackets();
    expect(got).toEqual(datagram(a, b, "one"));
    expect(parseUdpPacket(got!)).toBeDefined();
    expect(others).toEqual([]);
    expect(a.takeTunPackets()).toEqual([datagram(b, a, "two")]);
    expect(a.engine.drops()["peer-kind"]).toBe(1);
  });

  it("of a daemon that draws its source ports come from the port that a program here asked, and else as they are", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const send = (from: SimNode, to: SimNode, sourcePort: number, destinationPort: number): number[] => {
      const payload = bytesOf(9);
      from.sendPacket(udpPacket({ source: from.node, destination: to.node, payload, sourcePort, destinationPort }));
      network.run(50);
      const [got, ...others] = to.takeTunPackets();
      expect(others).toEqual([]);
      expect(parseUdpPacket(got!)).toBeDefined(); // its checksum is right
      return portsOf(got!);
    };
    expect(send(a, b, 5_300, 53)).toEqual([5_300, 53]);
    expect(send(b, a, 49_160, 5_300)).toEqual([53, 5_300]);
    expect(send(b, a, 4_000, 5_300)).toEqual([4_000, 5_300]); // not drawn: the daemon's own choice
    expect(send(a, b, 5_300, 60_000)).toEqual([5_300, 60_000]);
    expect(send(b, a, 49_161, 5_300)).toEqual([60_000, 5_300]);

    expect(send(b, a, 49_162, 7_000)).toEqual([49_162, 7_000]); // the agent began
    expect(send(a, b, 7_000, 49_162)).toEqual([7_000, 49_162]);
    expect(send(b, a, 49_163, 7_000)).toEqual([49_163, 7_000]);

    expect(send(b, a, 40_000, 8_000)).toEqual([40_000, 8_000]); // it began from a port of its program's
    expect(send(a, b, 8_000, 40_000)).toEqual([8_000, 40_000]);
    expect(send(b, a, 49_164, 8_000)).toEqual([49_164, 8_000]); // and has asked again from another

    network.run(121_000);
    expect(send(b, a, 49_165, 5_300)).toEqual([49_165, 5_300]); // nobody waits for an answer any more
  });

  it("answer an echo request with its own identifier, number and bytes, after one round trip", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const payload = new Uint8Array(1_000).fill(7);
    const request = { type: ICMPV6_TYPE.ECHO_REQUEST, identifier: 77, sequence: 3, payload };
    const [source, destination] = [a.engine.addressOf(a.node), a.engine.addressOf(b.node)];
    a.sendPacket(encodeEcho({ ...request, source, destination }));
    network.run(2 * network.conditions.latencyMs - 1);
    expect(a.takeTunPackets()).toEqual([]);
    network.run(1);
    const [reply] = a.takeTunPackets();
    expect(parseEcho(reply!)).toEqual({ ...request, type: ICMPV6_TYPE.ECHO_REPLY });
    expect(b.takeTunPackets()).toEqual([]);
  });

  it("longer than the interface's MTU arrive whole, though the kernel cut them, and come back whole", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    for (const length of [1_313, 5_000, MAX_VIRTUAL_PAYLOAD_BYTES]) {
      const payload = bytesOf(length);
      const there = udpPacket({ source: a.node, destination: b.node, payload });
      const id = length; // another for each packet
      for (const fragment of cutPacket(there, 1_360, id).reverse()) a.sendPacket(fragment);
      network.run(50);
      expect(b.takeTunPackets()).toEqual([there]);
    }
    const payload = bytesOf(4_000);
    const request = { type: ICMPV6_TYPE.ECHO_REQUEST, identifier: 77, sequence: 3, payload };
    const [source, destination] = [a.engine.addressOf(a.node), a.engine.addressOf(b.node)];
    for (const fragment of cutPacket(encodeEcho({ ...request, source, destination }), 1_360)) a.sendPacket(fragment);
    network.run(50);
    expect(a.takeTunPackets().map(parseEcho)).toEqual([{ ...request, type: ICMPV6_TYPE.ECHO_REPLY }]);
    expect(a.engine.drops()).toEqual({});
  });

  it("longer than any frame are refused with packet-too-big, which names the program's ports", () => {
    const all = pair();
    learned(all);
    const { a, b } = all;
    const packet = udpPacket({ source: a.node, destination: b.node, payload: bytesOf(MAX_VIRTUAL_PAYLOAD_BYTES + 1) });
    for (const fragment of cutPacket(packet, 1_360)) a.sendPacket(fragment);
    const [tooBig, ...others] = a.takeTunPackets();
    expect(others).toEqual([]);
    expect(icmp(tooBig)).toEqual([2, 0]);
    expect(new DataView(tooBig!.buffer).getUint32(44)).toBe(MAX_VIRTUAL_PAYLOAD_BYTES + 48);
    expect(tooBig!.subarray(48, 96)).toEqual(packet.subarray(0, 48));
    expect(a.engine.drops()).toEqual({ "too-big": 1 });
  });

  it("are dropped whole when their fragments overlap, do not fit together, or stay away", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const packet = udpPacket({ source: a.node, destination: b.node, payload: bytesOf(4_000) });
    const sendAll = (fragments: readonly Uint8Array[]) => fragments.forEach((fragment) => void a.sendPacket(fragment));
    const [first, second, last] = cutPacket(packet, 1_360, 1) as [Uint8Array, Uint8Array, Uint8Array];
    const overlapping = second.slice();
    new DataView(overlapping.buffer).setUint16(42, (1_312 - 8) | 1);
    sendAll([first, overlapping, second, last]); // RFC 5722
    const spoiled = cutPacket(packet, 1_360, 2);
    spoiled[1]![100]! ^= 1;
    sendAll(spoiled);
    sendAll(cutPacket(packet, 1_360, 3).slice(1));
    network.run(3_000);
    sendAll(cutPacket(packet, 1_360, 4));
    network.run(50);
    expect(b.takeTunPackets()).toEqual([packet]);
    expect(a.engine.drops()).toEqual({ "bad-fragment": 1, "malformed-packet": 1, "fragments-lost": 1 });
  });

  it("to a network port of the bridge are refused, as is what no agent understands", () => {
    const all = pair();
    learned(all);
    const { a, b } = all;
    const toBridge = datagram(a, b, "x");
    toBridge[42] = 0;
    toBridge[43] = 41;
    a.sendPacket(toBridge);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 3]);
    const sctp = datagram(a, b, "x");
    sctp[6] = 132;
    a.sendPacket(sctp);
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 3]);
    expect(a.engine.drops()["peer-kind"]).toBe(2);
  });
});

describe("what is shown of an agent", () => {
  it("counts once what was sent while nobody knew what it is", () => {
    const all = pair();
    const { network, a, b } = all;
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    network.tap = (flight) => (flight.from.address === b.endpoint.address ? undefined : flight);
    network.run(200);
    network.tap = (flight) => flight;
    expect(a.engine.linkFacts(b.node)?.kind).toBe("unknown");
    const before = a.engine.linkFacts(b.node)!;
    for (const text of ["one", "three"]) a.sendPacket(datagram(a, b, text));
    expect(a.engine.linkFacts(b.node)!.txPackets - before.txPackets).toBe(2); // whole, for all that is known
    learned(all);
    network.run(100);
    a.sendPacket(datagram(a, b, "seventy"));
    const after = a.engine.linkFacts(b.node)!;
    expect([after.txPackets - before.txPackets, after.txBytes - before.txBytes]).toEqual([3, 3 + 5 + 7]);
  });

  it("has a round trip soon, though the first ping came before it had its key", () => {
    const { network, a, b } = pair();
    a.kill();
    const toAgent: Uint8Array[] = [];
    network.tap = (flight) => {
      const isFrame = flight.bytes[3] === 0x53 && flight.from.address === a.endpoint.address; // PILS
      if (isFrame) toAgent.push(flight.bytes);
      return isFrame && toAgent.length <= 3 ? undefined : flight;
    };
    a.start();
    a.engine.plain.connections.listenerPort = LISTENER;
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    expect(a.engine.linkFacts(b.node)?.rttMs).toBeUndefined();
    network.run(1_100);
    expect(a.engine.linkFacts(b.node)?.rttMs).toBe(2 * network.conditions.latencyMs);
  });
});

describe("connections", () => {
  it("are answered only after the far server answered, with the SYN turned around to the listener", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.sendPacket(syn(a, b));
    network.run(500);
    expect(a.takeTunPackets()).toEqual([]); // the server has not answered yet
    const [asked] = commands(b);
    expect(asked?.kind).toBe("connect");
    tell(b, { kind: "connected", id: asked!.id });
    network.run(2 * network.conditions.latencyMs);
    const [injected] = a.takeTunPackets();
    expect(portsOf(injected!)[1]).toBe(LISTENER);
    expect(flagsOf(injected)).toBe(TCP.SYN);
    expect(transportChecksum(injected!, 40, 6)).toBe(0);
    expect(injected!.subarray(8, 24)).toEqual(a.engine.addressOf(b.node));
  });

  it("end their ports with them: a program that the kernel gives one is not taken for the daemon", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.sendPacket(syn(a, b));
    network.run(50);
    const { id } = commands(b)[0]!;
    const farPort = bound(b, id, 50_000);
    const fromPort = () => b.sendPacket(syn(b, a, 50_000, 0, farPort));
    fromPort();
    const [toServer] = b.takeTunPackets();
    expect(portsOf(toServer!)[1]).toBe(80);
    tell(b, { kind: "connected", id });
    network.run(50);
    tell(b, { kind: "closed", id, inOrder: false });
    network.run(50);
    expect(commands(a).map(({ kind }) => kind)).toEqual(["reset"]);
    fromPort();
    expect(b.takeTunPackets()).toEqual([]);
    network.run(50);
    expect(commands(a).map(({ kind }) => kind)).toEqual(["connect"]);
  });

  it("carry bytes and the end of each direction by itself", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const { atA, atB } = connect(network, a, b);
    tell(a, { kind: "data", id: atA, bytes: new Uint8Array(5_000).fill(1) });
    tell(a, { kind: "ended", id: atA });
    network.run(1_000);
    const toServer = commands(b);
    expect(written(toServer)).toBe(5_000);
    expect(toServer.at(-1)).toEqual({ kind: "end", id: atB });
    tell(b, { kind: "data", id: atB, bytes: new Uint8Array(3_000).fill(2) });
    tell(b, { kind: "ended", id: atB });
    network.run(1_000);
    const toProgram = commands(a);
    expect(written(toProgram)).toBe(3_000);
    expect(toProgram.at(-1)).toEqual({ kind: "end", id: atA });
    for (const [node, id] of [
      [a, atA],
      [b, atB],
    ] as const) {
      tell(node, { kind: "closed", id, inOrder: true });
    }
    network.run(1_000);
    expect([a, b].map((node) => node.engine.plain.connections.size)).toEqual([0, 0]);
    network.run(70_000);
    expect([a, b].map((node) => node.engine.plain.connections.nat.isEmpty)).toEqual([true, true]);
  });

  it("hold back a program whose reader takes nothing", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const { atA } = connect(network, a, b);
    let given = 0;
    let paused = false;
    for (let i = 0; i < 400 && !paused; i++) {
      tell(a, { kind: "data", id: atA, bytes: new Uint8Array(65_536) });
      given += 65_536;
      network.run(20);
      paused = commands(a).some(({ kind }) => kind === "pause");
    }
    expect(paused).toBe(true);
    expect(given).toBeLessThan(8 << 20);
    const unwritten = written(commands(b));
    expect(unwritten).toBeLessThan(700_000);
  });

  it("are refused with RST and ACK in one round trip where nobody listens", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.sendPacket(syn(a, b));
    network.run(network.conditions.latencyMs);
    const [asked] = commands(b);
    tell(b, { kind: "refused", id: asked!.id });
    network.run(network.conditions.latencyMs);
    const [reset] = a.takeTunPackets();
    expect(flagsOf(reset)).toBe(TCP.RST | TCP.ACK);
    expect(new DataView(reset!.buffer).getUint32(48)).toBe(100);
    expect(portsOf(reset!)).toEqual([80, 40_000]);
  });

  it("to an agent that is gone end with an ICMPv6 error", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    b.kill();
    a.sendPacket(syn(a, b));
    const packets: Uint8Array[] = [];
    expect(network.runUntil(() => packets.push(...a.takeTunPackets()) > 0, 20_000)).toBeLessThanOrEqual(4_000);
    expect(icmp(packets[0])).toEqual([1, 3]);
    expect(a.engine.plain.connections.size).toBe(0);
    a.sendPacket(syn(a, b, 40_001)); // by now it is known that nobody is there, or nearly so
    expect(network.runUntil(() => icmp(a.takeTunPackets()[0])?.[1] === 3, 20_000)).toBeLessThanOrEqual(4_000);
  });

  it("are waited for longer when the agent lives, and only leaves the SYN unanswered", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    Object.defineProperty(b.engine.plain.connections, "handleRequested", { value: () => undefined });
    a.sendPacket(syn(a, b));
    expect(network.runUntil(() => a.takeTunPackets().length > 0, 20_000)).toBeGreaterThan(14_000);
  });

  it("to an agent that was started anew are reset as soon as its new keys show that, and newer ones go on", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const { atA } = connect(network, a, b);
    b.kill();
    a.sendPacket(syn(a, b, 40_001)); // nobody answers it yet
    network.run(1_000);
    expect(commands(a)).toEqual([]);
    b.start();
    b.engine.plain.connections.listenerPort = LISTENER;
    b.sendPacket(datagram(b, a, "I am back"));
    network.run(300);
    expect(commands(a)).toEqual([{ kind: "reset", id: atA }]);
    network.run(3_000); // the SYN is repeated
    const [asked] = commands(b);
    expect(asked?.kind).toBe("connect");
    tell(b, { kind: "connected", id: asked!.id });
    network.run(100);
    expect(a.engine.plain.connections.size).toBe(1);
  });

  it("go on after an outage in which both sides gave up their keys", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const idle = connect(network, a, b);
    a.sendPacket(syn(a, b, 40_001));
    network.run(50);
    const [asked] = commands(b);
    tell(b, { kind: "connected", id: asked!.id });
    network.run(50);
    const busy = { atA: accept(a, b), atB: asked!.id };
    network.tap = () => undefined;
    tell(a, { kind: "data", id: busy.atA, bytes: new Uint8Array(1_000) });
    tell(b, { kind: "data", id: busy.atB, bytes: new Uint8Array(2_000) });
    const isDown = (node: SimNode, peer: SimNode) => node.engine.linkFacts(peer.node)?.isUp === false;
    network.runUntil(() => isDown(a, b) && isDown(b, a), 20_000);
    network.tap = (flight) => flight;
    network.run(60_000);
    expect([written(commands(b)), written(commands(a))]).toEqual([1_000, 2_000]);
    tell(a, { kind: "data", id: idle.atA, bytes: new Uint8Array(300) });
    network.run(100);
    expect(written(commands(b))).toBe(300);
    expect(commands(a)).toEqual([]);
  });

  it("are reset on both sides when a daemon ends", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const { atA, atB } = connect(network, a, b);
    a.command((engine, now) => engine.plain.close(now));
    expect(commands(a)).toEqual([{ kind: "reset", id: atA }]);
    network.run(50);
    expect(commands(b)).toEqual([{ kind: "reset", id: atB }]);
  });

  it("that nobody knows are reset, so that a program does not wait for a daemon that restarted", () => {
    const all = pair();
    learned(all);
    const { a, b } = all;
    a.sendPacket(tcpPacket({ source: a.node, destination: b.node, flags: TCP.ACK, acknowledgement: 1_234 }));
    const [reset] = a.takeTunPackets();
    expect(flagsOf(reset)).toBe(TCP.RST);
    expect(new DataView(reset!.buffer).getUint32(44)).toBe(1_234);
  });

  it("from before a daemon's start are provoked to speak when the agent is reached, and reset then", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.kill();
    a.start();
    a.engine.plain.connections.listenerPort = LISTENER;
    const program = { source: a.engine.addressOf(b.node), destination: a.engine.addressOf(a.node) };
    a.engine.plain.orphans.add(b.node, { ...program, sourcePort: 80, destinationPort: 40_000 });
    expect(a.takeTunPackets()).toEqual([]);
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    network.run(10);
    const provoked = a.takeTunPackets();
    expect(provoked.map(flagsOf)).toEqual([TCP.ACK, TCP.ACK]);
    for (const packet of provoked) {
      expect(portsOf(packet)).toEqual([80, 40_000]);
      expect(transportChecksum(packet, 40, 6)).toBe(0);
    }
    // What the kernel of the program answers: where it is, and what it expects.
    a.sendPacket(tcpPacket({ source: a.node, destination: b.node, flags: TCP.ACK, acknowledgement: 77, sequence: 55 }));
    const [reset] = a.takeTunPackets();
    expect([flagsOf(reset), new DataView(reset!.buffer).getUint32(44)]).toEqual([TCP.RST, 77]);
  });

  it("wait their turn as long as the agent takes so few at a time, all 200 of them", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.kill(); // it forgets that b takes more
    a.start();
    a.engine.plain.connections.listenerPort = LISTENER;
    network.runUntil(() => a.engine.linkFacts(b.node)?.isUp === true, 5_000);
    for (let port = 40_000; port < 40_200; port++) a.sendPacket(syn(a, b, port));
    let asked = 0;
    network.runUntil(() => {
      for (const command of commands(b)) {
        if (command.kind !== "connect") continue;
        asked++; // it refuses, as an accepted stream would show that it takes more
        tell(b, { kind: "refused", id: command.id });
      }
      return asked === 200;
    }, 30_000);
    network.run(50);
    const answers = a.takeTunPackets();
    expect(answers.map(flagsOf)).toEqual(new Array(200).fill(TCP.RST | TCP.ACK));
  });

  it("to the listener itself are nobody's: not from the network, not by a stream", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const toListener = syn(a, b);
    new DataView(toListener.buffer).setUint16(42, LISTENER);
    toListener.fill(0, 56, 58);
    new DataView(toListener.buffer).setUint16(56, transportChecksum(toListener, 40, 6));
    a.sendPacket(toListener);
    network.run(50);
    expect(commands(b)).toEqual([]);
    expect(flagsOf(a.takeTunPackets()[0])).toBe(TCP.RST | TCP.ACK);
    expect(a.command((engine) => engine.plain.connections.handleSocketAccepted(b.node, 50_000))).toBeUndefined();
  });

  it("are all reset when trust is revoked: the sockets here and there, and the programs", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const { atA, atB } = connect(network, a, b);
    a.sendPacket(syn(a, b, 40_001)); // and one that is still being dialled
    network.run(50);
    commands(b);
    a.takeTunPackets();
    a.command((engine, now) => engine.introductions.revoke(b.node, now));
    expect(commands(a)).toEqual([{ kind: "reset", id: atA }]);
    expect(a.takeTunPackets().map(flagsOf)).toContain(TCP.RST | TCP.ACK);
    network.run(50);
    expect(commands(b).filter(({ kind }) => kind === "reset")).toContainEqual({ kind: "reset", id: atB });
    expect([a, b].map((node) => node.engine.plain.connections.size)).toEqual([0, 0]);
  });

  it("are flows that say who began them, whichever side did", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    a.sendPacket(syn(a, b));
    b.sendPacket(syn(b, a, 40_001));
    network.run(50);
    const asked = commands(a).find(({ kind }) => kind === "connect");
    if (asked?.kind !== "connect") throw new Error("a did not ask its server");
    a.sendPacket(syn(a, b, 50_000, 0, bound(a, asked.id, 50_000))); // the daemon's, for the server
    const [remotePort, serverPort] = portsOf(a.takeTunPackets()[0]!); // the agent's own choice of a port, and the server's
    expect(serverPort).toBe(80);
    const flows = a.command((engine, now) => engine.admission.list(now));
    const begun = flows.map(({ beganRemotely, localPort, remotePort }) => [beganRemotely, localPort, remotePort]);
    expect(begun.sort()).toEqual([
      [false, 40_000, 80],
      [true, 80, remotePort],
    ]);
  });

  it("that the policy does not allow are refused, and those that a new policy forbids are cut on both sides", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    const { atA, atB } = connect(network, a, b);
    a.sendPacket(tcpPacket({ source: a.node, destination: b.node, flags: TCP.ACK, sequence: 100, acknowledgement: 5 }));
    a.takeTunPackets();
    a.command((engine, now) => engine.admission.replaceRules([], now)); // nothing is allowed
    expect(commands(a)).toContainEqual({ kind: "reset", id: atA });
    expect(a.takeTunPackets().map(flagsOf)).toContain(TCP.RST);
    network.run(50);
    expect(commands(b)).toContainEqual({ kind: "reset", id: atB });
    b.sendPacket(syn(b, a, 40_002));
    network.run(50);
    expect(commands(a)).toEqual([]);
    expect(b.takeTunPackets().map(flagsOf)).toContain(TCP.RST | TCP.ACK);
    b.sendPacket(datagram(b, a, "no"));
    network.run(50);
    expect(a.takeTunPackets()).toEqual([]);
  });

  it("of a stranger are not even refused", () => {
    const network = new SimNetwork(3);
    const [a, b] = [network.addNode("a"), network.addNode("b")];
    network.run(200);
    befriend(network, a, b);
    restartAsPlain(b);
    b.engine.plain.connections.listenerPort = LISTENER;
    network.runUntil(() => b.engine.linkFacts(a.node)?.isUp === true, 10_000);
    network.tap = (flight) => (flight.from === a.endpoint ? undefined : flight); // b is not told
    a.command((engine, now) => engine.introductions.revoke(b.node, now));
    const before = network.captured.length;
    b.sendPacket(syn(b, a));
    network.run(1_000);
    expect(commands(a)).toEqual([]);
    expect(a.takeTunPackets().filter((packet) => flagsOf(packet) === TCP.SYN)).toEqual([]);
    expect(network.captured.length).toBeGreaterThan(before);
    expect(a.engine.drops()["not-trusted"] ?? 0).toBeGreaterThan(0);
  });
});
