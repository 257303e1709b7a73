/**
 * The rendezvous under test, as a process of its own: `rendezvous-server.ts STATE`. Says where it listens, and on each
 * line of its input how much memory and processor time it uses, as lines of JSON.
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
  const { rss, heapUsed, external } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  const facts = { port: rendezvous.registry.port, rss, used: heapUsed + external, cpuMs: (user + system) / 1000 };
  process.stdout.write(`${JSON.stringify(facts)}\n`);
}

report();
for await (const _ of createInterface({ input: process.stdin })) report();
await rendezvous.close();
