/** A flood from one address, and the latency of somebody else meanwhile; real sockets on loopback addresses. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { concatBytes, toBase64 } from "../../src/base/bytes.ts";
import { type Rendezvous, runRendezvous } from "../../src/daemon/rendezvous.ts";
import { encodeDiscover } from "../../src/wire/beacon.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { encodeRegistryFrame } from "../../src/wire/registry.ts";
import { RegistrySocket } from "../helpers/registry-socket.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

const ANY = { address: "0.0.0.0", port: 0 };
let root: string;
let rendezvous: Rendezvous;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "flood-"));
  const registryLimits = { requests: { perSecond: 200, burst: 400 } };
  rendezvous = await runRendezvous({ registry: ANY, beacon: ANY, stateDir: root, registryLimits });
});

afterEach(async () => {
  await rendezvous.close();
  rmSync(root, { recursive: true, force: true });
});

/** A few where the machine is free; seconds where those of the flood are served first. */
const ANSWER_MS = 250;

/** The median of `count` waits, in milliseconds. */
async function median(count: number, ask: () => Promise<unknown>): Promise<number> {
  const waits: number[] = [];
  for (let i = 0; i < count; i++) {
    const startedAt = performance.now();
    await ask();
    waits.push(performance.now() - startedAt);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return waits.sort((a, b) => a - b)[Math.floor(count / 2)]!;
}

test("a registry flooded from one address goes on answering others, and refuses the flood", async () => {
  const { port } = rendezvous.registry;
  const other = await RegistrySocket.open(port);
  const key = toBase64(seededBytes(1)(32));
  expect(await other.ask({ type: "register", listen_addr: "0.0.0.0:1", public_key: key })).toMatchObject({
    node_id: 1,
  });

  const requests = Array.from({ length: 200 }, () =>
    encodeRegistryFrame(
      JSON.stringify({ type: "resolve", node_id: 1, requester_id: 1, signature: toBase64(seededBytes(2)(64)) }),
    ),
  );
  const burst = concatBytes(...requests);
  const flooders = Array.from({ length: 30 }, () => connect({ host: "127.0.0.1", port, localAddress: "127.0.0.9" }));
  for (const flooder of flooders) {
    flooder.on("error", () => {});
    flooder.on("data", () => {});
    flooder.write(burst);
    flooder.write(burst);
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
  const wait = await median(40, async () => {
    expect(await other.ask({ type: "lookup", node_id: 1 })).toMatchObject({ node_id: 1 });
  });
  for (const flooder of flooders) flooder.destroy();
  expect(wait).toBeLessThan(ANSWER_MS);
  // 400 at once and 200 a second passed; each connection had one more refused five times a second.
  expect(rendezvous.stats().requests).toBeLessThan(3000);
  other.close();
});

test("a beacon flooded from one address goes on answering others", async () => {
  const { port } = rendezvous.beacon;
  const [other, flooder] = [createSocket("udp4").bind(0, "127.0.0.1"), createSocket("udp4").bind(0, "127.0.0.9")];
  await Promise.all([once(other, "listening"), once(flooder, "listening")]);
  let isOver = false;
  const flood = (async () => {
    for (let node = 10; !isOver; node++) {
      for (let i = 0; i < 50; i++) flooder.send(encodeDiscover(nodeId(node), false), port, "127.0.0.1");
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  let answered = 0;
  const wait = await median(40, async () => {
    const reply = once(other, "message").then(() => answered++);
    other.send(encodeDiscover(nodeId(2), false), port, "127.0.0.1");
    await Promise.race([reply, new Promise((resolve) => setTimeout(resolve, 500))]);
  });
  isOver = true;
  await flood;
  other.close();
  flooder.close();
  expect(answered).toBeGreaterThanOrEqual(36);
  expect(wait).toBeLessThan(ANSWER_MS);
  expect(rendezvous.stats().beacon.limitedControl).toBeGreaterThan(1000);
});
