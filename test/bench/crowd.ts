/**
 * Many nodes in one process, each on a port of its own: `crowd.ts ADDRESS FIRST-PORT FIRST-NODE COUNT PEER KEY`. They talk to
 * the node PEER, whose public key is KEY (base64). Says how many sessions there are, whenever that has changed.
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { fromBase64 } from "../../src/base/bytes.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { CrowdMember } from "./crowd-member.ts";
import { memberKey } from "./crowd-state.ts";

const [address, firstPort, firstNode, count, peer, key] = process.argv.slice(2) as [string, ...string[]];
const crypto = new NodeCrypto();
const target = { node: nodeId(Number(peer)), publicKey: fromBase64(key!)! };
let settled = 0;
let said = -1;

for (let index = 0; index < Number(count); index++) {
  const { seed, publicKey } = memberKey(crypto, index);
  const member = new CrowdMember(crypto, { node: nodeId(Number(firstNode) + index), seed, publicKey }, target);
  const socket = createSocket("udp4");
  let counted = false;
  socket.on("message", (datagram, from) => {
    for (const answer of member.handle(datagram)) socket.send(answer, from.port, from.address);
    if (member.isSettled !== counted) settled += counted ? -1 : 1;
    counted = member.isSettled;
  });
  socket.bind(Number(firstPort) + index, address);
  await once(socket, "listening");
}
process.stdout.write("listening\n");
setInterval(() => {
  if (settled !== said) process.stdout.write(`sessions ${settled}\n`);
  said = settled;
}, 500);
