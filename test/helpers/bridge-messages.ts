/** Any message of the bridge protocol that has a fixed end, for tests on random values. */
import fc from "fast-check";
import { type BridgeMessage, FEATURE, REVOCATION_REASONS } from "../../src/wire/bridge.ts";
import type { LeaseField } from "../../src/wire/lease-field.ts";
import { parseServices } from "../../src/wire/services.ts";

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffffffff });

const services = fc
  .array(
    fc.record({ protocol: fc.constantFrom(6, 17, 58), first: fc.integer({ min: 1, max: 65_535 }), length: fc.nat(9) }),
  )
  .map((list) => {
    const words = list.map(({ protocol, first, length }) =>
      protocol === 58 ? "icmp" : `${protocol === 6 ? "tcp" : "udp"}/${first}-${Math.min(first + length, 65_535)}`,
    );
    return words.length === 0 ? [] : (parseServices(words.slice(0, 16).join(",")) ?? []);
  });
const amount = fc.option(fc.integer({ min: 0, max: 1e15 }), { nil: undefined });
const leaseField: fc.Arbitrary<LeaseField> = fc.record({
  forReceiver: fc.option(services, { nil: undefined }),
  forSender: fc.option(services, { nil: undefined }),
  leftMs: amount,
  leftBytes: amount,
  answers: u32,
});

/** The bit of leases in `features` says whether there is a field for them. */
const hello = fc
  .record({
    kind: fc.constantFrom("hello" as const, "hello-ack" as const),
    consents: fc.boolean(),
    features: u32,
    mtu: u16,
    instance: fc.uint8Array({ minLength: 8, maxLength: 8 }),
    epoch: u32,
    lease: fc.option(leaseField, { nil: undefined }),
  })
  .map((fields) => {
    const others = (fields.features & ~FEATURE.LEASES) >>> 0;
    return { ...fields, features: fields.lease === undefined ? others : (others | FEATURE.LEASES) >>> 0 };
  });

export const bridgeMessage: fc.Arbitrary<BridgeMessage> = fc.oneof(
  hello,
  fc.record({
    kind: fc.constantFrom("revoked" as const, "revoked-ack" as const),
    epoch: u32,
    reason: fc.constantFrom(...REVOCATION_REASONS),
  }),
  fc.record({
    kind: fc.constant("why-question" as const),
    id: u32,
    protocol: fc.integer({ min: 0, max: 255 }),
    port: u16,
    begins: fc.constantFrom("sender" as const, "receiver" as const),
  }),
  fc.record({
    kind: fc.constant("why-answer" as const),
    id: u32,
    isAllowed: fc.boolean(),
    hasListener: fc.constantFrom(true, false, undefined),
  }),
  fc.record({
    kind: fc.constantFrom("mtu-probe" as const, "mtu-answer" as const),
    size: fc.integer({ min: 0, max: 1500 }),
    id: u32,
  }),
);
