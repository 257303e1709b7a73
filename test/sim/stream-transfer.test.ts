import { describe, expect, it } from "vitest";
import { concatBytes, equalBytes } from "../../src/base/bytes.ts";
import { type LinkTraits, PERFECT_LINK, StreamNetwork, seededChance, Transfer } from "../helpers/stream-network.ts";

function randomBytes(length: number, seed: number): Uint8Array {
  const chance = seededChance(seed);
  return Uint8Array.from({ length }, () => Math.floor(chance() * 256));
}

function exchange(link: LinkTraits, seed: number, bytes: number) {
  const network = new StreamNetwork(link, seed);
  network.keepPackets = false;
  const up = randomBytes(bytes, seed + 1);
  const down = randomBytes(bytes, seed + 2);
  const client = new Transfer(up);
  const server = new Transfer(down);
  network.b.table.listen(80, "accept");
  network.a.program = client.handle;
  network.b.program = server.handle;
  network.a.table.dial(network.b.address, 80, network.now);
  const startedAt = network.now;
  const isOver = () => client.events.includes("closed") && server.events.includes("closed");
  const finished = network.run(isOver, 600_000);
  return { finished, client, server, up, down, network, elapsedMs: network.now - startedAt };
}

describe("a transfer in both directions", () => {
  it("delivers every byte and ends cleanly on a perfect link", () => {
    const { finished, client, server, up, down } = exchange(PERFECT_LINK, 1, 300_000);
    expect(finished).toBe(true);
    expect(equalBytes(concatBytes(...server.received), up)).toBe(true);
    expect(equalBytes(concatBytes(...client.received), down)).toBe(true);
  });
});
