/** The kernel's program for known and unknown sources, run by a machine of its own against what it should say. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import { KnownSources } from "../../src/rendezvous/known-sources.ts";
import { GROUP_SOCKETS, sortingProgram } from "../../src/rendezvous/source-sorting.ts";
import { parseIp } from "../../src/wire/underlay-address.ts";

/** As the kernel has it (linux/filter.h): the numbers of its instructions, and registers of 32 bits. */
function run(program: Uint8Array, packet: Uint8Array): number {
  const [code, number] = [new Uint16Array(program.buffer), new Uint32Array(program.buffer)];
  const view = new DataView(packet.buffer);
  const memory = new Uint32Array(16);
  let [a, x] = [0, 0];
  for (let at = 0; at < program.length / 8; at++) {
    const k = number[2 * at + 1]!;
    const test = (holds: boolean): number => program[8 * at + (holds ? 2 : 3)]!;
    switch (code[4 * at]) {
      case 0x00:
        a = k;
        break;
      case 0x20:
        a = view.getUint32(k - NETWORK);
        break;
      case 0x30:
        a = view.getUint8(k - NETWORK);
        break;
      case 0x60:
        a = memory[k]!;
        break;
      case 0x02:
        memory[k] = a;
        break;
      case 0x24:
        a = Math.imul(a, k) >>> 0;
        break;
      case 0x44:
        a = (a | k) >>> 0;
        break;
      case 0x54:
        a = (a & k) >>> 0;
        break;
      case 0x64:
        a = (a << k) >>> 0;
        break;
      case 0x74:
        a >>>= k;
        break;
      case 0x7c:
        a >>>= x;
        break;
      case 0xa4:
        a = (a ^ k) >>> 0;
        break;
      case 0xac:
        a = (a ^ x) >>> 0;
        break;
      case 0x05:
        at += k;
        break;
      case 0x15:
        at += test(a === k);
        break;
      case 0x35:
        at += test(a >= k);
        break;
      case 0x45:
        at += test((a & k) !== 0);
        break;
      case 0x16:
        return a;
      case 0x07:
        x = a;
        break;
      default:
        throw new Error(`no such instruction at ${at}`);
    }
  }
  throw new Error("the program has no end");
}

const NETWORK = 0xfff0_0000;

function packetFrom(address: string): Uint8Array {
  const source = parseIp(address)!;
  const packet = new Uint8Array(40);
  packet[0] = source.length === 4 ? 0x45 : 0x60;
  packet.set(source, source.length === 4 ? 12 : 8);
  return packet;
}

const sortingOf = (known: readonly string[], secret: number): Uint8Array => {
  const sources = new KnownSources();
  for (const address of known) sources.noteProof(address, instant(0));
  return sortingProgram(sources.table(secret, instant(1)), secret);
};

const ip4 = fc.ipV4();
const ip6 = fc
  .ipV6()
  .map((text) => text.toLowerCase())
  .filter((text) => parseIp(text)?.length === 16);
const addresses = fc.uniqueArray(fc.oneof(ip4, ip6), { maxLength: 300 });
const words = fc.integer({ min: 0, max: 0xffff_ffff });

describe("the program that sorts sources", () => {
  it("puts every known source into the first sockets, one and the same each time", () => {
    fc.assert(
      fc.property(addresses, words, (known, secret) => {
        const program = sortingOf(known, secret);
        const all = sortingOf([...known, "203.0.113.77"], secret);
        for (const address of known) {
          const socket = run(program, packetFrom(address));
          expect(socket).toBeLessThan(GROUP_SOCKETS);
          expect(run(all, packetFrom(address))).toBe(socket);
        }
      }),
    );
  });

  it("puts others into the second sockets, but for the share of the table that is taken", () => {
    fc.assert(
      fc.property(words, fc.integer({ min: 0, max: 3_000 }), (secret, count) => {
        const program = sortingOf(
          Array.from({ length: count }, (_, index) => `10.7.${index >> 8}.${index & 255}`),
          secret,
        );
        const strangers = Array.from({ length: 4_000 }, (_, index) => `198.18.${index >> 8}.${index & 255}`);
        const sockets = strangers.map((address) => run(program, packetFrom(address)));
        const share = sockets.filter((socket) => socket < GROUP_SOCKETS).length / strangers.length;
        expect(Math.max(...sockets)).toBeLessThan(2 * GROUP_SOCKETS);
        expect(share).toBeLessThanOrEqual(count === 0 ? 0 : (1.3 * count) / 16_384 + 0.02);
      }),
      { numRuns: 30 },
    );
  });

  it("uses all sockets of a half about alike, for neighbours in a network too", () => {
    const program = sortingOf([], 0x1234_5678);
    const counts = new Array<number>(GROUP_SOCKETS).fill(0);
    for (let host = 0; host < 4_096; host++) {
      counts[run(program, packetFrom(`192.0.${host >> 8}.${host & 255}`)) - GROUP_SOCKETS]!++;
    }
    expect(Math.min(...counts)).toBeGreaterThan(128);
    expect(Math.max(...counts)).toBeLessThan(512);
  });

  it("has one place for all addresses of an IPv6 /64", () => {
    const program = sortingOf(["2001:db8:1:2::1"], 99);
    const [first, other] = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"].map((each) => run(program, packetFrom(each)));
    expect(other).toBe(first);
    expect(first).toBeLessThan(GROUP_SOCKETS);
  });

  it("stays within what the kernel takes, however many sources are known", () => {
    const many = Array.from({ length: 30_000 }, (_, index) => `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`);
    for (const count of [0, 1, 1_000, 30_000]) {
      const steps = sortingOf(many.slice(0, count), 7).length / 8;
      expect(steps).toBeLessThanOrEqual(4_096);
      // Older kernels also have 20 KB for the program, at 8 bytes and at most two of theirs for one of these.
      expect(steps).toBeLessThanOrEqual(2_000);
    }
  });
});
