/**
 * A beacon with two nodes, of which one sends the other FRAMES frames in datagrams or in runs (the argument), all of them
 * before the beacon reads the first. Says how many came, in which order, and at which port the beacon is. For relay-calls.test.ts.
 */
import { concatBytes } from "../../src/base/bytes.ts";
import { addressWords } from "../../src/daemon/endpoint-cache.ts";
import { NativeBeaconPort } from "../../src/daemon/native-beacon-port.ts";
import { NativeRelay, RELAY_GROUP, RELAY_ROW, RELAY_ROW_WORDS, RELAY_SLOT_BYTES } from "../../src/io/native-relay.ts";
import { BeaconServer } from "../../src/rendezvous/beacon.ts";
import { encodeDiscover, encodeRelayPrefix } from "../../src/wire/beacon.ts";
import { nodeId } from "../../src/wire/ids.ts";

const FRAMES = 320;
const FRAMES_IN_RUN = process.argv[2] === "runs" ? 40 : 1;
const [SENDER, RECEIVER] = [1, 0x80000002];

const server = new BeaconServer({});
const beacon = new NativeBeaconPort({ address: "127.0.0.1", port: 0 }, server);
await beacon.bind();
const nodes = [openNode("127.0.0.2"), openNode("127.0.0.3")] as const;
for (const [index, node] of [SENDER, RECEIVER].entries()) send(nodes[index]!, encodeDiscover(nodeId(node), true), 1);
await until(() => server.nodeCount === 2);

let run: Uint8Array[] = [];
for (let number = 0; number < FRAMES; number++) {
  const frame = Uint8Array.of(0x50, number >> 8, number & 0xff, 1, 2, 3, 4);
  run.push(concatBytes(encodeRelayPrefix(nodeId(SENDER), nodeId(RECEIVER)), frame));
  if (run.length < FRAMES_IN_RUN) continue;
  send(nodes[0], concatBytes(...run), run.length);
  run = [];
}

let received = 0;
let isInOrder = true;
await until(() => {
  for (const group of Object.values(RELAY_GROUP)) {
    for (let rows = nodes[1].receive(group); rows > 0; rows = nodes[1].receive(group)) {
      for (let at = 0; at < rows * RELAY_ROW_WORDS; at += RELAY_ROW_WORDS) take(nodes[1], at);
    }
  }
  return received >= FRAMES;
});
process.stdout.write(`${JSON.stringify({ received, isInOrder, port: beacon.endpoint.port })}\n`);
process.exit(0);

function openNode(address: string): NativeRelay {
  const relay = new NativeRelay();
  relay.open({ address, port: 0 }, () => {});
  return relay;
}

/** One message of the system's, at once. */
function send(from: NativeRelay, bytes: Uint8Array, datagrams: number): void {
  const slot = from.takeSlot()!;
  from.arena.set(bytes, slot * RELAY_SLOT_BYTES);
  from.rows[RELAY_ROW.OFFSET] = slot * RELAY_SLOT_BYTES;
  from.rows[RELAY_ROW.LENGTH] = bytes.length;
  from.rows[RELAY_ROW.SEGMENT] = bytes.length / datagrams;
  from.rows[RELAY_ROW.FORM] = 0;
  from.rows.set(addressWords(beacon.endpoint), RELAY_ROW.ADDRESS);
  from.rows[RELAY_ROW.PORT] = beacon.endpoint.port;
  if (from.send(1) !== 1) throw new Error("the socket is full");
  from.release(slot);
}

/** What is no frame (an answer to the discovery) is passed over. */
function take({ arena, rows }: NativeRelay, at: number): void {
  const end = rows[at + RELAY_ROW.OFFSET]! + rows[at + RELAY_ROW.LENGTH]!;
  for (let start = rows[at + RELAY_ROW.OFFSET]!; start < end; start += rows[at + RELAY_ROW.SEGMENT]!) {
    if (arena[start] !== 9) continue;
    isInOrder &&= arena[start + 10]! * 256 + arena[start + 11]! === received;
    received++;
  }
  nodes[1].release(rows[at + RELAY_ROW.SLOT]!);
}

async function until(isSo: () => boolean): Promise<void> {
  for (let turns = 0; !isSo(); turns++) {
    if (turns > 2_000) throw new Error(`${received} of ${FRAMES} frames came`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
