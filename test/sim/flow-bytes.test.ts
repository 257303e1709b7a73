/** What flows count: the same bytes at both ends, however packets were cut and joined on the way. */
import { expect, it } from "vitest";
import { superpacket, tcpPacket, udpPacket } from "../helpers/inner-packets.ts";
import { befriend, SimNetwork } from "../helpers/sim-network.ts";

it("both ends of a flow count the same bytes, of superpackets each segment with its headers", () => {
  const network = new SimNetwork(11);
  const a = network.addNode("a");
  const b = network.addNode("b");
  network.run(200);
  befriend(network, a, b);
  network.run(1_000);
  const to = { source: a.node, destination: b.node };
  a.sendStaged(superpacket(tcpPacket({ ...to, payload: new Uint8Array(2_500) }), 1_000));
  a.sendPacket(tcpPacket({ ...to, sequence: 2_500, payload: new Uint8Array(10) }));
  a.sendPacket(udpPacket({ ...to, payload: new Uint8Array(100) }));
  network.run(100);
  const bytesOf = (protocol: number, node: typeof a) => {
    const flow = node.engine.admission.list(network.now).find((one) => one.protocol === protocol);
    return [flow?.sentBytes, flow?.receivedBytes];
  };
  expect(bytesOf(6, a)).toEqual([2_500 + 3 * 60 + 70, 0]);
  expect(bytesOf(6, b)).toEqual([0, 2_500 + 3 * 60 + 70]);
  expect(bytesOf(17, a)).toEqual([148, 0]);
  expect(bytesOf(17, b)).toEqual([0, 148]);
});
