import { describe, expect, test } from "vitest";
import { fromHex, toHex } from "../../src/base/bytes.ts";
import type { KeyPair } from "../../src/base/crypto.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { NoiseHandshake, nonceOf } from "../../src/tunnel/noise.ts";
import { PortableCrypto } from "../../src/tunnel/portable-crypto.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";
import noise from "./noise.json" with { type: "json" };

const hex = (text: string) => fromHex(text)!;
const NOTHING = new Uint8Array(0);

describe.each([
  ["OpenSSL", new NodeCrypto()],
  ["@noble", new PortableCrypto(seededBytes(1))],
])("Noise with %s", (_name, crypto) => {
  const BASE_POINT = new Uint8Array(32);
  BASE_POINT[0] = 9;
  const pair = (privateKey: string): KeyPair => ({
    privateKey: hex(privateKey),
    publicKey: crypto.x25519(hex(privateKey), BASE_POINT)!,
  });

  test.each(noise.vectors)("$protocol_name says every byte of the published conversation", (vector) => {
    const initiator = new NoiseHandshake(crypto, {
      role: "initiator",
      prologue: hex(vector.init_prologue),
      s: pair(vector.init_static),
      rs: hex(vector.init_remote_static),
      e: pair(vector.init_ephemeral),
    });
    const responder = new NoiseHandshake(crypto, {
      role: "responder",
      prologue: hex(vector.resp_prologue),
      s: pair(vector.resp_static),
      rs: hex(vector.resp_remote_static),
      e: pair(vector.resp_ephemeral),
    });
    const [first, second, ...transport] = vector.messages;
    expect(toHex(initiator.writeMessage(hex(first!.payload))!)).toBe(first!.ciphertext);
    expect(toHex(responder.readMessage(hex(first!.ciphertext))!)).toBe(first!.payload);
    expect(toHex(responder.writeMessage(hex(second!.payload))!)).toBe(second!.ciphertext);
    expect(toHex(initiator.readMessage(hex(second!.ciphertext))!)).toBe(second!.payload);
    const [a, b] = [initiator.split()!, responder.split()!];
    expect(toHex(a.handshakeHash)).toBe(vector.handshake_hash);
    expect(b).toEqual({ send: a.receive, receive: a.send, handshakeHash: a.handshakeHash });
    expect(transport.length).toBeGreaterThan(2);
    transport.forEach(({ payload, ciphertext }, i) => {
      const key = i % 2 === 0 ? a.send : a.receive;
      expect(toHex(crypto.sealAesGcm(key, nonceOf(Math.floor(i / 2)), NOTHING, hex(payload)))).toBe(ciphertext);
    });
  });
});
