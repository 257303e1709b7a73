/** Two friends in a simulated network, policies for them, and packets by hand. */
import { expect } from "vitest";
import { parsePolicy } from "../../src/policy/parse-policy.ts";
import { encodeEcho } from "../../src/wire/icmpv6.ts";
import { ACCOUNTS } from "./accounts.ts";
import { udpPacket } from "./inner-packets.ts";
import { befriend, SimNetwork, type SimNode } from "./sim-network.ts";

export function friends(): { network: SimNetwork; a: SimNode; b: SimNode } {
  const network = new SimNetwork(5);
  const a = network.addNode("a");
  const b = network.addNode("b");
  network.run(200);
  befriend(network, a, b);
  network.run(1_000);
  a.takeTunPackets();
  b.takeTunPackets();
  return { network, a, b };
}

export function setPolicy(network: SimNetwork, node: SimNode, text: string) {
  const { rules, problems } = parsePolicy([{ file: "policy", text, writtenAt: network.wall }], ACCOUNTS);
  expect(problems).toEqual([]);
  return node.command((engine, now) => engine.admission.replaceRules(rules, now));
}

export const between = (from: SimNode, to: SimNode) => ({ source: from.node, destination: to.node });
export const addresses = (from: SimNode, to: SimNode) => {
  const packet = udpPacket(between(from, to));
  return { source: packet.slice(8, 24), destination: packet.slice(24, 40) };
};
export const echo = (from: SimNode, to: SimNode, type: 128 | 129) =>
  encodeEcho({ type, identifier: 128, sequence: 1, payload: new Uint8Array(8), ...addresses(from, to) });

/** What reaches the other's interface. */
export function sent(network: SimNetwork, from: SimNode, to: SimNode, packet: Uint8Array): Uint8Array[] {
  from.sendPacket(packet);
  network.run(50);
  return to.takeTunPackets();
}

export const icmp = (packet: Uint8Array | undefined) => (packet?.[6] === 58 ? [packet[40], packet[41]] : undefined);

/** UDP between ports; `swap` is the answer. */
export const udp = (from: SimNode, to: SimNode, source: number, destination: number) => {
  const packet = udpPacket({ ...between(from, to), sourcePort: source });
  new DataView(packet.buffer).setUint16(42, destination);
  return packet;
};
