/** Keys of thousands of peers share what OpenSSL needs for some of them (native-shims/keys.c). */
import { afterEach, expect, test } from "vitest";
import { PortableDataPlane } from "../../src/tunnel/portable-data-plane.ts";
import { keySpec, virtualPacket } from "../helpers/data-plane-pair.ts";
import { closePlanes, hexOf, TwinPlanes } from "./twin-planes.ts";

/** More than WARM_KEYS. */
const KEYS = 1_100;
const FIRST_SLOT = 100;
const FIRST_PEER = 5_000;

afterEach(closePlanes);

test("seal and open in turns as the twin's do, each with its own key, counter and replay window", () => {
  const planes = new TwinPlanes();
  const peers = new PortableDataPlane();
  const slots = Array.from({ length: KEYS }, (_, i) => FIRST_SLOT + i);
  for (const slot of slots) {
    const key = new Uint8Array(32).fill(slot).fill(slot >> 8, 16);
    const peer = FIRST_PEER + slot;
    planes.both((plane) => plane.installKey(slot, keySpec(2, peer, { key })));
    peers.installKey(slot, keySpec(peer, 2, { key }));
  }
  for (let round = 0; round < 2; round++) {
    for (const slot of slots) {
      const out = virtualPacket({ sourceNode: 2, destinationNode: FIRST_PEER + slot });
      expect(hexOf(planes.native.seal(slot, out))).toBe(hexOf(planes.portable.seal(slot, out)));
      if (slot % 100 !== 0) continue; // the twin is slow
      const frame = peers.seal(slot, virtualPacket({ sourceNode: FIRST_PEER + slot, destinationNode: 2 }));
      expect(planes.receive([frame])).toMatchObject([{ keySlot: slot }]);
      expect(planes.receive([frame])).toEqual([]);
    }
  }
  expect(planes.native.removeKey(FIRST_SLOT)).toBe(planes.portable.removeKey(FIRST_SLOT));
});
