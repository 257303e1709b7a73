/**
 * Two engines of which b is told to be a plain agent, with the programs on both sides: packets they send and get, and the
 * daemons' TCP sockets, played by the test.
 */
import type { SocketCommand, SocketEvent } from "../../src/engine/plain/socket-messages.ts";
import { TCP, tcpPacket, udpPacket } from "./inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "./sim-network.ts";

export const LISTENER = 45_000;
export const HELLOS_MS = 2_600;

export interface Pair {
  readonly network: SimNetwork;
  readonly a: SimNode;
  readonly b: SimNode;
}

/** They trust each other; a does not know yet what b is. */
export function pair(seed = 1): Pair {
  const network = new SimNetwork(seed);
  const a = network.addNode("a");
  const b = network.addNode("b");
  restartAsPlain(b);
  for (const node of [a, b]) node.engine.plain.connections.listenerPort = LISTENER;
  network.run(200);
  befriend(network, a, b);
  return { network, a, b };
}

export function restartAsPlain(node: SimNode): void {
  node.kill();
  node.plainOnly = true;
  node.start();
}

/** Until a has concluded from b's silence what it is. */
export function learned({ network, a, b }: Pair): void {
  network.runUntil(() => a.engine.linkFacts(b.node)?.kind === "plain", HELLOS_MS);
  a.takeTunPackets();
  b.takeTunPackets();
}

export const commands = (node: SimNode): SocketCommand[] => {
  const all: SocketCommand[] = [];
  const { connections } = node.engine.plain;
  for (let next = connections.pollCommand(); next !== undefined; next = connections.pollCommand()) all.push(next);
  return all;
};
export const tell = (node: SimNode, event: SocketEvent) =>
  node.command((engine, now) => engine.plain.connections.handleSocketEvent(event, now));
const between = (from: SimNode, to: SimNode) => ({ source: from.node, destination: to.node });
export const syn = (from: SimNode, to: SimNode, sourcePort = 40_000, network = 0, destinationPort = 80) =>
  tcpPacket({ ...between(from, to), network, flags: TCP.SYN, sequence: 99, sourcePort, destinationPort });
export const portsOf = (packet: Uint8Array) => [(packet[40]! << 8) | packet[41]!, (packet[42]! << 8) | packet[43]!];
export const flagsOf = (packet: Uint8Array | undefined) => packet?.[53];
export const datagram = (from: SimNode, to: SimNode, text: string, network = 0) =>
  udpPacket({ ...between(from, to), network, payload: new TextEncoder().encode(text) });

export const icmp = (packet: Uint8Array | undefined) => (packet?.[6] === 58 ? [packet[40], packet[41]] : undefined);

/** A connection from a program on a to port 80 of b, both ends open; the ids at a and at b. */
export function connect(
  network: SimNetwork,
  a: SimNode,
  b: SimNode,
  overlayNetwork = 0,
): { readonly atA: number; readonly atB: number } {
  a.sendPacket(syn(a, b, 40_000, overlayNetwork));
  network.run(50);
  const [asked] = commands(b);
  if (asked?.kind !== "connect") throw new Error("b did not ask its server");
  tell(b, { kind: "connected", id: asked.id });
  network.run(50);
  return { atA: accept(a, b), atB: asked.id };
}

/** The SYN that a program sent is handed over to its daemon's listener: the connection's id there. */
export function accept(a: SimNode, b: SimNode): number {
  const [injected] = a.takeTunPackets();
  const id = a.command((engine) => engine.plain.connections.handleSocketAccepted(b.node, portsOf(injected!)[0]!));
  if (id === undefined) throw new Error("a does not know the connection");
  tell(a, { kind: "connected", id });
  return id;
}

/** The socket of a daemon that was asked to connect has this port: where it is to connect to. */
export function bound(node: SimNode, id: number, localPort: number): number {
  const port = node.command((engine) => engine.plain.connections.handleSocketBound(id, localPort));
  if (port === undefined) throw new Error("the connection is over");
  return port;
}

/** All bytes that were written to a connection, as text. */
export function textTo(id: number, all: readonly SocketCommand[]): string {
  const writes = all.filter((command) => command.kind === "write").filter((command) => command.id === id);
  return writes.map(({ bytes }) => new TextDecoder().decode(bytes)).join("");
}

export function written(all: readonly SocketCommand[]): number {
  return all.reduce((sum, command) => sum + (command.kind === "write" ? command.bytes.length : 0), 0);
}
