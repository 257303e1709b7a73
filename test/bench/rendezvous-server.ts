/**
 * The rendezvous under test, as a process of its own: `rendezvous-server.ts STATE`. Says where it listens and how much
 * memory its objects take, at the start and on each line of its input, as lines of JSON.
 */
import { createInterface } from "node:readline";
import { runRendezvous } from "../../src/daemon/rendezvous.ts";

const ANY = { address: "127.0.0.1", port: 0 };
const rendezvous = await runRendezvous({
  registry: ANY,
  beacon: ANY,
  stateDir: process.argv[2]!,
  // All nodes of the bench live at a few addresses.
  registryLimits: { requests: { perSecond: 1e6, burst: 1e6 }, newKeys: { perSecond: 1e6, burst: 1e6 } },
});

function report(): void {
  for (let i = 0; i < 3; i++) globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  process.stdout.write(`${JSON.stringify({ port: rendezvous.registry.port, heapBytes: heapUsed + external })}\n`);
}

report();
for await (const _ of createInterface({ input: process.stdin })) report();
await rendezvous.close();
