/**
 * A rendezvous in a process of its own, for tests that kill it: `node rendezvous-process.ts STATE_DIR`.
 * Prints one line of JSON when it is ready, with the ports that the system chose.
 */
import { runRendezvous } from "../../src/daemon/rendezvous.ts";

const UNLIMITED = { perSecond: 1e9, burst: 1e9 };
const rendezvous = await runRendezvous({
  registry: { address: "127.0.0.1", port: 0 },
  beacon: { address: "127.0.0.1", port: 0 },
  stateDir: process.argv[2]!,
  registryLimits: { requests: UNLIMITED, newKeys: UNLIMITED },
});
process.stdout.write(`${JSON.stringify({ registry: rendezvous.registry.port, beacon: rendezvous.beacon.port })}\n`);
