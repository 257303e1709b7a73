import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { Agreement } from "../../src/tunnel/agreement.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import type { Session } from "../../src/tunnel/session.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const crypto = new PortableCrypto(seededBytes(3));
const seeds = [1, 2, 3].map((fill) => new Uint8Array(32).fill(fill));
const identities = seeds.map((seed) => crypto.ed25519PublicKey(seed));

/** A session as its end `own` (0, 1 or 2) has it. */
function sessionOf(own: number, binding = 7): Session {
  const identityKey = identities[own]!;
  const publicKey = crypto.x25519OfIdentity(identityKey)!;
  return {
    level: "base",
    peerExchangeKey: new Uint8Array(32),
    binding: new Uint8Array(32).fill(binding),
    own: { identityKey, keys: { privateKey: crypto.x25519OfSeed(seeds[own]!), publicKey } },
    isOurs: false,
    keySlot: 0,
    legacySlot: undefined,
    installedAt: instant(0),
    sendSlot: 0,
    lastOpenedAt: undefined,
  };
}

/** Node numbers are 10, 20 and 30. */
function end(own: number, peer: number) {
  const agreement = new Agreement(crypto, nodeId(10 * (own + 1)), nodeId(10 * (peer + 1)), identities[peer]!);
  return { agreement, session: sessionOf(own) };
}

function answered(outcome: ReturnType<Agreement["handleFirst"]>) {
  if (typeof outcome === "string") throw new Error(`not answered: ${outcome}`);
  return outcome;
}

describe("two ends of a session", () => {
  it("agree on a key and a prefix for each direction", () => {
    const [a, b] = [end(0, 1), end(1, 0)];
    const { answer, keys } = answered(b.agreement.handleFirst(b.session, a.agreement.begin(a.session)!));
    const atA = a.agreement.handleSecond(a.session, answer)!;
    expect(keys).toMatchObject({ send: atA.receive, receive: atA.send, binding: atA.binding, isOurs: false });
    expect(keys).toMatchObject({ sendPrefix: atA.receivePrefix, receivePrefix: atA.sendPrefix });
    expect(atA.send).not.toEqual(atA.receive);
    expect(atA.sendPrefix).not.toEqual(atA.receivePrefix);
    expect(a.agreement.openIn).toBeUndefined();
  });

  it("take a repeated message for what it is: the same answer, and no other keys", () => {
    const [a, b] = [end(0, 1), end(1, 0)];
    const first = a.agreement.begin(a.session)!;
    const { answer } = answered(b.agreement.handleFirst(b.session, first));
    expect(b.agreement.knows(b.session, first)).toBe(true);
    expect(answered(b.agreement.handleFirst(b.session, first))).toEqual({ answer, keys: undefined });
    expect(a.agreement.handleSecond(a.session, answer)).toBeDefined();
    expect(a.agreement.handleSecond(a.session, answer)).toBeUndefined();
  });

  it("that both begin go on with what the lower number began", () => {
    const [a, b] = [end(0, 1), end(1, 0)];
    const [ofA, ofB] = [a.agreement.begin(a.session)!, b.agreement.begin(b.session)!];
    expect(a.agreement.handleFirst(a.session, ofB)).toBe("ours");
    const { answer, keys } = answered(b.agreement.handleFirst(b.session, ofA));
    expect(b.agreement.openIn).toBeUndefined();
    expect(a.agreement.handleSecond(a.session, answer)?.send).toEqual(keys?.receive);
  });

  it("do not mind what belongs to another session, another peer or nobody", () => {
    const [a, b] = [end(0, 1), end(1, 0)];
    const first = a.agreement.begin(a.session)!;
    expect(b.agreement.handleFirst(sessionOf(1, 8), first)).toBe("bad");
    expect(end(1, 2).agreement.handleFirst(b.session, first)).toBe("bad");
    expect(end(2, 0).agreement.handleFirst(sessionOf(2), first)).toBe("bad");
    expect(b.agreement.handleFirst(b.session, new Uint8Array(48))).toBe("bad");
    const { answer } = answered(b.agreement.handleFirst(b.session, first));
    expect(a.agreement.handleSecond(sessionOf(0, 8), answer)).toBeUndefined();
    expect(a.agreement.handleSecond(a.session, new Uint8Array(48))).toBeUndefined();
    expect(a.agreement.handleSecond(a.session, answer)).toBeDefined(); // it still counts
  });

  it("cannot be given the answer to an earlier beginning", () => {
    const [a, b] = [end(0, 1), end(1, 0)];
    const { answer } = answered(b.agreement.handleFirst(b.session, a.agreement.begin(a.session)!));
    a.agreement.begin(sessionOf(0, 9));
    a.agreement.begin(a.session);
    expect(a.agreement.handleSecond(a.session, answer)).toBeUndefined();
  });

  it("agree on nothing when the peer's identity is no key", () => {
    const agreement = new Agreement(crypto, nodeId(1), nodeId(2), new Uint8Array(31));
    expect(agreement.begin(sessionOf(0))).toBeUndefined();
    expect(agreement.handleFirst(sessionOf(0), new Uint8Array(48))).toBe("bad");
  });

  it("know different people under the two Ed25519 keys that have one X25519 key", () => {
    const twin = identities[0]!.slice();
    twin[31]! ^= 0x80;
    expect(crypto.x25519OfIdentity(twin)).toEqual(crypto.x25519OfIdentity(identities[0]!));
    const a = end(0, 1);
    const deceived = new Agreement(crypto, nodeId(20), nodeId(10), twin);
    expect(deceived.handleFirst(sessionOf(1), a.agreement.begin(a.session)!)).toBe("bad");
  });
});
