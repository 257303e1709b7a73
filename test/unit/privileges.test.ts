/** What is read of the kernel before anything is given up. */
import { expect, it } from "vitest";
import { isMapped } from "../../src/daemon/confinement.ts";
import { hasAll, hasOthers, parsePrivileges } from "../../src/io/privileges.ts";

it("a process's user and capabilities are the effective ones, and nothing where the kernel tells nothing", () => {
  const status =
    "Name:\tx\nUid:\t1000\t7\t0\t0\nCapPrm:\t0000000000001400\nCapEff:\t0000000000001000\nNoNewPrivs:\t1\n";
  expect(parsePrivileges(status)).toEqual({ uid: 7, permitted: 0x1400n, effective: 0x1000n, hasNoNew: true });
  expect(parsePrivileges("")).toEqual({ uid: 0, permitted: 0n, effective: 0n, hasNoNew: false });
});

it("capabilities are counted one by one, those above the thirty-second too", () => {
  expect(hasAll(0x1400n, ["NET_ADMIN", "NET_BIND_SERVICE"])).toBe(true);
  expect(hasAll(0x1000n, ["NET_ADMIN", "NET_BIND_SERVICE"])).toBe(false);
  expect(hasOthers(0x1400n, ["NET_ADMIN", "NET_BIND_SERVICE"])).toBe(false);
  expect(hasOthers(0x1400n, ["NET_ADMIN"])).toBe(true);
  expect(hasOthers(1n << 40n, ["NET_ADMIN"])).toBe(true);
});

it("a user is in a namespace when a line of its map holds his number", () => {
  const whole = "         0          0 4294967295\n";
  expect([isMapped(whole, 0), isMapped(whole, 65_534)]).toEqual([true, true]);
  const rootless = "         0       1000          1\n";
  expect([isMapped(rootless, 0), isMapped(rootless, 1), isMapped(rootless, 1000)]).toEqual([true, false, false]);
  const subordinate = "         0       1000          1\n         1     100000      65536\n";
  expect([isMapped(subordinate, 999), isMapped(subordinate, 65_536), isMapped(subordinate, 65_537)]).toEqual([
    true,
    true,
    false,
  ]);
  expect(isMapped("", 0)).toBe(false);
});
