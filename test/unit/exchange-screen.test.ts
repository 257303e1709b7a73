import { createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { concatBytes, toHex } from "../../src/base/bytes.ts";
import { type Instant, instant } from "../../src/base/instant.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { ExchangeProof } from "../../src/tunnel/exchange-proof.ts";
import { ExchangeBudget, ExchangeScreen } from "../../src/tunnel/exchange-screen.ts";
import { ExchangeSender } from "../../src/tunnel/exchange-sender.ts";
import { KeyExchange, type LocalIdentity, PILA_FLAG } from "../../src/tunnel/key-exchange.ts";
import type { LinkContext } from "../../src/tunnel/link-context.ts";
import type { LinkSender } from "../../src/tunnel/link-sender.ts";
import { Path } from "../../src/tunnel/path.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import type { Sessions } from "../../src/tunnel/sessions.ts";
import { type Pila, parsePila, pilaSignatureInput } from "../../src/wire/frame.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const crypto = new PortableCrypto(seededBytes(3));

function identity(node: number): LocalIdentity {
  const seed = crypto.randomBytes(32);
  return { node: nodeId(node), seed, publicKey: crypto.ed25519PublicKey(seed) };
}

const [A, B, C] = [identity(1), identity(2), identity(3)];
const proofOf = (own: LocalIdentity, peer: LocalIdentity) => new ExchangeProof(crypto, own, peer.node, peer.publicKey);
const from = (address: string) => ({ address, port: 4000 });
const KNOWN = from("198.51.100.2");
const RELAY = from("192.0.2.1");
const elsewhere = (index: number) => from(`198.18.${index >> 8}.${index & 255}`);

/** An exchange in b's name for a; with a true tag only by b. */
function exchange(tag: Uint8Array | undefined, key = crypto.randomBytes(32)): Pila {
  const trailer = concatBytes(Uint8Array.from([0, 1, 0, 0, 0, 1]), tag ?? new Uint8Array(0));
  return { sender: B.node, exchangeKey: key, identityKey: B.publicKey, signature: crypto.randomBytes(64), trailer };
}

function byB(): Pila {
  const key = crypto.randomBytes(32);
  return exchange(proofOf(B, A).ours(key), key);
}

function screenOfB(budget = new ExchangeBudget()): ExchangeScreen {
  const path = new Path(false);
  path.suggest(KNOWN, "registry", instant(0));
  return new ExchangeScreen(budget, proofOf(A, B), path);
}

/** How many of `count`, evenly over `ms`, are let through. */
function admitted(count: number, ms: number, admits: (index: number, at: Instant) => boolean): number {
  let passed = 0;
  for (let i = 0; i < count; i++) if (admits(i, instant((i * ms) / count))) passed++;
  return passed;
}

describe("the tag of a key exchange", () => {
  const key = crypto.randomBytes(32);

  it("is what both identities make, as HMAC-SHA-256 of what is signed, and nobody else", () => {
    const tag = proofOf(B, A).ours(key)!;
    expect(tag).toHaveLength(12);
    expect(proofOf(A, B).isPeers(key, tag)).toBe(true);
    expect(proofOf(C, B).isPeers(key, tag)).toBe(false);
    expect(proofOf(A, C).isPeers(key, tag)).toBe(false);
    expect(proofOf(A, B).ours(key)).not.toEqual(tag); // its own, with the same secret: the sender is in it
    expect(proofOf(A, B).isPeers(crypto.randomBytes(32), tag)).toBe(false);

    const shared = crypto.x25519(crypto.x25519OfSeed(A.seed), crypto.x25519OfIdentity(B.publicKey)!)!;
    const secret = crypto.hkdfSha256(shared, new TextEncoder().encode("pilot-tun/exchange-proof"), 32);
    const expected = createHmac("sha256", secret).update(pilaSignatureInput(B.node, key)).digest("hex");
    expect(toHex(tag)).toBe(expected.slice(0, 24));
  });

  it("is the same by OpenSSL", () => {
    const native = new ExchangeProof(new NodeCrypto(), B, A.node, A.publicKey);
    expect(native.ours(key)).toEqual(proofOf(B, A).ours(key));
  });

  it("follows when this node gets another identity", () => {
    const [before, after] = [identity(1), identity(1)];
    let own = before;
    const local: LocalIdentity = {
      node: nodeId(1),
      get seed() {
        return own.seed;
      },
      get publicKey() {
        return own.publicKey;
      },
    };
    const proof = new ExchangeProof(crypto, local, B.node, B.publicKey);
    const old = proof.ours(key)!;
    own = after;
    expect(proofOf(B, after).isPeers(key, proof.ours(key)!)).toBe(true);
    expect(proofOf(B, after).isPeers(key, old)).toBe(false);
  });

  it("is missing with a peer whose key can share nothing", () => {
    const small = { ...B, publicKey: new Uint8Array(32).fill(0, 1).fill(1, 0, 1) };
    expect(proofOf(A, small).ours(key)).toBeUndefined();
    expect(proofOf(A, small).isPeers(key, new Uint8Array(12))).toBe(false);
  });

  it("stands at the end of the frame, where it is found", () => {
    const half = new KeyExchange(crypto, B, A.node);
    const pila = parsePila(half.frame(PILA_FLAG.REQUEST, proofOf(B, A).ours(half.publicKey)))!;
    expect(pila.trailer).toHaveLength(18);
    expect(half.checkSignature(pila)).toBeUndefined();
    expect(screenOfB().admits(pila, elsewhere(0), false, instant(0))).toBe(true);
  });
});

describe("signature checks in a peer's name", () => {
  it("are eight and two a second for each place, and none of them takes from another", () => {
    const screen = screenOfB();
    const flood = admitted(10_000, 10_000, (i, at) => screen.admits(exchange(undefined), elsewhere(i), false, at));
    expect(flood).toBe(8 + 19); // the last one is due at 10 s
    const made = admitted(10_000, 10_000, (i, at) =>
      screen.admits(exchange(new Uint8Array(12).fill(i)), KNOWN, false, at),
    );
    expect(made).toBe(8 + 19);
    expect(admitted(100, 1_000, (_, at) => screen.admits(exchange(undefined), RELAY, true, at))).toBe(8 + 1);
    expect(admitted(8, 1_000, (i, at) => screen.admits(byB(), elsewhere(i), false, at))).toBe(8);
  });

  it("are made for what the peer made, whatever else comes, and once for each copy of it", () => {
    const screen = screenOfB();
    for (let i = 0; i < 1_000; i++) {
      screen.admits(exchange(new Uint8Array(12)), elsewhere(i), false, instant(0));
      screen.admits(exchange(new Uint8Array(12)), KNOWN, false, instant(0));
      screen.admits(exchange(new Uint8Array(12)), RELAY, true, instant(0));
    }
    const true_ = byB();
    expect(screen.admits(true_, elsewhere(5), false, instant(0))).toBe(true);
    expect(admitted(1_000, 0, (i, at) => screen.admits(true_, elsewhere(i), false, at))).toBe(0);
    expect(screen.admits(byB(), elsewhere(5), false, instant(0))).toBe(true);
    screen.reset();
    expect(screen.admits(true_, elsewhere(5), false, instant(0))).toBe(true);
  });

  it("are bounded for all peers together, and their own exchanges are not among them", () => {
    const budget = new ExchangeBudget();
    const screens = Array.from({ length: 500 }, () => screenOfB(budget));
    const flood = (source: (index: number) => typeof KNOWN, relayed: boolean) =>
      admitted(20_000, 10_000, (i, at) => screens[i % 500]!.admits(exchange(undefined), source(i), relayed, at));
    expect(flood(elsewhere, false)).toBeLessThanOrEqual(200 + 100 * 10);
    expect(flood(() => RELAY, true)).toBeLessThanOrEqual(200 + 100 * 10);
    const known = flood(() => KNOWN, false);
    expect(known).toBeLessThanOrEqual(1_000 + 200 * 10);
    expect(known).toBeGreaterThan(2_900);
    const at = instant(10_000);
    expect(screens.filter((screen) => screen.admits(byB(), elsewhere(1), false, at))).toHaveLength(500);
  });
});

describe("exchanges that somebody at another address has a node send in answer", () => {
  it("are forty and twenty a second for all peers together; where a peer may be, one in half a second", () => {
    const context = { exchangeBudget: new ExchangeBudget() } as LinkContext;
    const sent = { known: 0, elsewhere: 0 };
    const sender = {
      send: (_: Uint8Array, to: typeof KNOWN) => {
        if (to === KNOWN) sent.known++;
        else sent.elsewhere++;
      },
    } as unknown as LinkSender;
    const sessions = { exchange: new KeyExchange(crypto, A, B.node) } as Sessions;
    const senders = Array.from({ length: 200 }, () => {
      const path = new Path(false);
      path.suggest(KNOWN, "registry", instant(0));
      return new ExchangeSender(context, sessions, path, sender, proofOf(A, B));
    });
    for (let i = 0; i < 20_000; i++) senders[i % 200]!.request(elsewhere(i), false, instant(i / 2));
    expect(sent.elsewhere).toBeLessThanOrEqual(40 + 20 * 10);
    expect(sent.elsewhere).toBeGreaterThan(230);
    for (let i = 0; i < 1_000; i++) senders[0]!.request(KNOWN, false, instant(i));
    expect(sent.known).toBe(2);
  });
});
