/** What a beacon and a node say to each other, and the beacon itself under a sequence of datagrams. */
import type { Endpoint } from "../../../src/base/endpoint.ts";
import { after, instant } from "../../../src/base/instant.ts";
import { BeaconClient } from "../../../src/beacon/client.ts";
import { BeaconServer } from "../../../src/rendezvous/beacon.ts";
import { parseBeaconToNode, parseNodeToBeacon, relayToDelivery } from "../../../src/wire/beacon.ts";
import { encodeProbe, encodeProbeAnswer, parseProbe, parseProbeAnswer } from "../../../src/wire/beacon-probe.ts";
import { nodeId } from "../../../src/wire/ids.ts";
import { cheapCrypto } from "../cheap-crypto.ts";
import { demand, demandSame, FuzzInput } from "../input.ts";

const SOURCES: readonly Endpoint[] = [
  { address: "198.51.100.1", port: 4000 },
  { address: "198.51.100.2", port: 4000 },
  { address: "2001:db8::1", port: 65_535 },
];

export function fuzz(data: Uint8Array): void {
  const input = new FuzzInput(data);
  const crypto = cheapCrypto();
  const key = crypto.ed25519PublicKey(new Uint8Array(32));
  const server = new BeaconServer({
    proofs: { crypto, rendezvous: "00".repeat(16), keyOf: (node) => (node === 1 ? key : undefined) },
    hides: (node) => node === 2,
  });
  const client = new BeaconClient(nodeId(1), instant(0), {
    publicKey: key,
    rendezvous: () => "00".repeat(16),
    sign: (text) => crypto.ed25519Sign(new Uint8Array(32), new TextEncoder().encode(text)),
  });
  let now = instant(0);
  for (let steps = 0; steps < MAX_STEPS && !input.isEmpty; steps++) {
    const source = input.pick(SOURCES);
    now = after(now, input.u8() * 100);
    const datagram = input.block();
    parse(datagram);
    const answers = server.handleDatagram(datagram.slice(), source, now);
    demand(answers.length <= 2, "one datagram is answered by two at most", answers.length);
    const bytes = answers.reduce((sum, answer) => sum + answer.bytes.length, 0);
    // Relaying names the sender, and a punch command names an endpoint to each side.
    demand(bytes <= datagram.length + 64, "the beacon amplifies nothing", datagram.length, bytes);
    client.handleDatagram(datagram, now);
    client.handleTimeout(now);
  }
}

function parse(datagram: Uint8Array): void {
  parseBeaconToNode(datagram);
  const request = parseNodeToBeacon(datagram);
  if (request?.kind === "relay") {
    for (const extended of [false, true]) {
      const delivered = parseBeaconToNode(relayToDelivery(datagram.slice(), extended));
      demand(
        delivered?.kind === "relay-deliver" && delivered.sender === request.sender,
        "a relayed frame keeps its sender",
      );
    }
  }
  const probe = parseProbe(datagram);
  if (probe !== undefined) demandSame(parseProbe(encodeProbe(probe)), probe, "a probe survives");
  const answer = parseProbeAnswer(datagram);
  const again = answer && encodeProbeAnswer(answer);
  if (again !== undefined) demandSame(parseProbeAnswer(again), answer, "an answer to a probe survives");
}

const MAX_STEPS = 64;
