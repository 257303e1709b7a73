/**
 * Run on a host of rendezvous-ops.test.ts until it is ended: everything one source can throw at a rendezvous at once.
 * `flood-program.ts REGISTRY BEACON NODE`: requests on many connections, discoveries under made-up numbers, and frames for
 * NODE through the relay, each as fast as it goes.
 */
import { createSocket } from "node:dgram";
import { connect } from "node:net";
import { concatBytes, toBase64 } from "../../src/base/bytes.ts";
import { encodeDiscover, encodeRelayPrefix } from "../../src/wire/beacon.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { encodeRegistryFrame } from "../../src/wire/registry.ts";
import { parseEndpoint } from "../../src/wire/underlay-address.ts";

const registry = parseEndpoint(process.argv[2]!)!;
const beacon = parseEndpoint(process.argv[3]!)!;
const victim = nodeId(Number(process.argv[4]));

const signature = toBase64(new Uint8Array(64).fill(1));
const request = { type: "resolve", node_id: victim, requester_id: victim, signature };
const requests = concatBytes(...Array.from({ length: 500 }, () => encodeRegistryFrame(JSON.stringify(request))));
for (let i = 0; i < 30; i++) {
  const socket = connect({ host: registry.address, port: registry.port });
  const write = (): void => {
    while (!socket.destroyed && socket.write(requests));
  };
  socket
    .on("connect", write)
    .on("drain", write)
    .on("data", () => {})
    .on("error", () => {});
}

const udp = createSocket("udp4");
const frame = concatBytes(encodeRelayPrefix(nodeId(999_999), victim), new Uint8Array(1200).fill(0x50));
let sent = 0;
const flood = (): void => {
  for (let i = 0; i < 40; i++) {
    const datagram = i % 4 === 0 ? encodeDiscover(nodeId(1000 + (sent % 1e6)), false) : frame;
    udp.send(datagram, beacon.port, beacon.address, () => {});
    sent++;
  }
  setImmediate(flood);
};
udp.bind(0, () => {
  console.log("flooding");
  flood();
});
