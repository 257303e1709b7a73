import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type BeaconPort, BeaconSocket } from "../../src/daemon/beacon-socket.ts";
import { NativeBeaconPort } from "../../src/daemon/native-beacon-port.ts";
import { type HealthParts, healthOf } from "../../src/daemon/rendezvous-health.ts";
import { BeaconServer } from "../../src/rendezvous/beacon.ts";
import { builtShim } from "../native/build-shim.ts";

builtShim();

const WORKING: Omit<HealthParts, "beacon"> = {
  store: { nodeCount: () => 3, probe: () => {} },
  registry: { isListening: true, connectionCount: 2 },
  registryEndpoint: { address: "127.0.0.1", port: 9000 },
};

describe.each([
  ["node:dgram", BeaconSocket],
  ["the shim", NativeBeaconPort],
] as const)("with a beacon by %s", (_, Port) => {
  let beacon: BeaconPort;

  beforeEach(async () => {
    beacon = new Port({ address: "0.0.0.0", port: 0 }, new BeaconServer());
    expect(beacon.isBound).toBe(false);
    await beacon.bind();
  });

  afterEach(() => beacon.close().catch(() => {}));

  test("all is well while it answers", async () => {
    const health = await healthOf({ ...WORKING, beacon });
    expect(health).toMatchObject({ healthy: true, beacon: { bound: true, answers: true, nodes: 0 } });
  });

  test("it is not well once the beacon's socket is closed", async () => {
    const { port } = beacon.endpoint;
    await beacon.close();
    expect(beacon.isBound).toBe(false);
    const closed = { endpoint: { address: "127.0.0.1", port }, isBound: beacon.isBound, server: beacon.server };
    const health = await healthOf({ ...WORKING, beacon: { ...closed, stats: () => beacon.stats() } });
    expect(health).toMatchObject({ healthy: false, beacon: { bound: false, answers: false } });
  });
});

test("a beacon that has its port and answers nothing is not healthy", async () => {
  const mute = createSocket("udp4").bind(0, "127.0.0.1");
  await once(mute, "listening");
  const server = new BeaconServer();
  const queue = { queuedBytes: 0, queuedFrames: 0, queuedFlows: 0, queueFull: 0 };
  const stats = () => ({ ...queue, overflowKnown: 0, overflowStrangers: 0 });
  const beacon = { endpoint: { address: "127.0.0.1", port: mute.address().port }, isBound: true, server, stats };
  const health = await healthOf({ ...WORKING, beacon });
  expect(health).toMatchObject({ healthy: false, beacon: { bound: true, answers: false } });
  mute.close();
});

test("a disk that takes nothing and a registry that does not listen are not healthy either", async () => {
  const beacon = new BeaconSocket({ address: "127.0.0.1", port: 0 }, new BeaconServer());
  await beacon.bind();
  const full = () => {
    throw new Error("database or disk is full");
  };
  const unwritable = await healthOf({ ...WORKING, beacon, store: { nodeCount: () => 3, probe: full } });
  expect(unwritable).toMatchObject({ healthy: false, store: { writable: false, problem: "database or disk is full" } });
  const deaf = await healthOf({ ...WORKING, beacon, registry: { isListening: false, connectionCount: 0 } });
  expect(deaf).toMatchObject({ healthy: false, registry: { listening: false } });
  await beacon.close();
});
