/** An answer to a key exchange that comes when this side has given up its half. */
import { expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { KeyExchange, PILA_FLAG, pilaFlags } from "../../src/tunnel/key-exchange.ts";
import { LinkTable } from "../../src/tunnel/link-table.ts";
import { PortableDataPlane } from "../../src/tunnel/portable-data-plane.ts";
import { REKEY_LIMITS } from "../../src/tunnel/rekeying.ts";
import { parsePila } from "../../src/wire/frame.ts";
import { nodeId } from "../../src/wire/ids.ts";

const crypto = new NodeCrypto();
const PEER_AT = { address: "192.0.2.1", port: 4_000 };

function local(node: number) {
  const seed = crypto.randomBytes(32);
  return { node: nodeId(node), seed, publicKey: crypto.ed25519PublicKey(seed) };
}

it("makes no session of keys that the peer does not have, and is asked for anew", () => {
  const [us, them] = [local(1), local(2)];
  const links = new LinkTable({
    ...{ crypto, dataPlane: new PortableDataPlane(), local: us, allowLegacyKeys: false, relayOnly: false },
    ...{ relay: () => undefined, relayKind: () => "relay", rekey: REKEY_LIMITS },
    ...{ mustAgree: () => false, wantsKeepalive: () => false },
  });
  const sent = () => {
    const frames = [];
    for (let out = links.pollTransmit(); out !== undefined; out = links.pollTransmit()) frames.push(out.datagram);
    while (links.pollEvent() !== undefined);
    return frames;
  };
  const link = links.open(them.node, them.publicKey)!;
  link.suggestEndpoint(PEER_AT, "cached", instant(0));
  link.connect(instant(0));
  for (let due = links.pollTimeout(); due !== undefined; due = links.pollTimeout()) links.handleTimeout(due.at);
  const first = parsePila(sent()[0]!)!;

  const answer = parsePila(new KeyExchange(crypto, them, us.node).frame(PILA_FLAG.ANSWER))!;
  const now = instant(60_000);
  expect(link.handleExchange(answer, PEER_AT, false, now)).toBe("stale-key-exchange");
  expect(link.isUp).toBe(false);
  const again = sent().map((frame) => parsePila(frame)!);
  expect(again.map(({ trailer }) => pilaFlags(trailer))).toEqual([PILA_FLAG.REQUEST]);
  expect(again[0]!.exchangeKey).not.toEqual(first.exchangeKey);

  expect(link.handleExchange(answer, PEER_AT, false, now)).toBeUndefined();
  expect(link.isUp).toBe(true);
});
