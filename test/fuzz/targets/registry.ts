/** The registry under a stream of frames cut anywhere, in JSON and binary, and a node's client under any replies. */
import { after, instant, type WallClock } from "../../../src/base/instant.ts";
import { RegistryClient } from "../../../src/registry/client.ts";
import { MemoryStore } from "../../../src/rendezvous/memory-store.ts";
import { RegistryServer } from "../../../src/rendezvous/registry.ts";
import { Conversation } from "../../../src/rendezvous/request-context.ts";
import { binaryRequest, jsonRequest } from "../../../src/rendezvous/request-frame.ts";
import { FrameDecoder } from "../../../src/wire/frame-decoder.ts";
import { cheapCrypto } from "../cheap-crypto.ts";
import { demand, FuzzInput, textOf } from "../input.ts";

const WALL = 1_900_000_000_000 as WallClock;
const MAX_FRAME_BYTES = 64 * 1024;

export function fuzz(data: Uint8Array): void {
  const input = new FuzzInput(data);
  if (input.u8() % 2 === 0) server(input);
  else client(input);
}

function server(input: FuzzInput): void {
  const crypto = cheapCrypto();
  const startedAt = instant(0);
  const store = new MemoryStore();
  const registry = new RegistryServer({ store, crypto, startedAt, startedAtWall: WALL, adminToken: "token" });
  const conversation = new Conversation("198.51.100.1");
  const decoder = new FrameDecoder(MAX_FRAME_BYTES);
  const toRequest = input.u8() % 2 === 0 ? jsonRequest : binaryRequest;
  let now = startedAt;
  for (let steps = 0; steps < MAX_STEPS && !input.isEmpty; steps++) {
    now = after(now, input.u8());
    decoder.push(input.block());
    for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) {
      demand(frame.length <= MAX_FRAME_BYTES, "a frame is no longer than the limit", frame.length);
      const reply = registry.handleFrame(toRequest(frame), conversation, now, WALL);
      if (toRequest === jsonRequest) JSON.parse(reply as string);
    }
    if (decoder.isBroken) demand(decoder.bufferedBytes === 0, "a broken stream keeps nothing");
    for (let turns = 0; registry.pollNotice() !== undefined; turns++) demand(turns < 2_000, "notices end");
  }
}

function client(input: FuzzInput): void {
  const crypto = cheapCrypto();
  const seed = new Uint8Array(32);
  const client = new RegistryClient({
    crypto,
    identity: { seed, publicKey: crypto.ed25519PublicKey(seed) },
    hostname: "alice",
    listen: { port: 4000, lan: [] },
    isPublic: false,
  });
  let now = instant(0);
  client.handleConnecting(now);
  client.handleConnected(now);
  for (let steps = 0; steps < MAX_STEPS && !input.isEmpty; steps++) {
    now = after(now, input.u8() * 50);
    client.handleTimeout(now);
    const request = client.pollRequest();
    if (request !== undefined) JSON.parse(request);
    client.handleReply(textOf(input.block()), now);
    for (let turns = 0; client.pollEvent() !== undefined; turns++) demand(turns < 10_000, "events end");
    const deadline = client.pollTimeout();
    demand(deadline === undefined || Number.isFinite(deadline.at), "a deadline is a time", deadline);
    if (client.wantsDisconnect) {
      client.handleDisconnected(now, "gone");
      client.handleConnecting(now);
      client.handleConnected(now);
    }
  }
}

const MAX_STEPS = 48;
