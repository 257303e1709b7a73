import { describe, expect, it } from "vitest";
import {
  BROADCAST_NODE,
  DEFAULT_OVERLAY_PREFIX,
  formatOverlayAddress,
  parseOverlayAddress,
  parseOverlayPrefix,
  parsePilotAddress,
} from "../../src/wire/address.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";

const PREFIX = DEFAULT_OVERLAY_PREFIX;

describe("overlay addresses", () => {
  it.each([
    [0, 0, 5, "fd50:494c:4f54::5"],
    [1, 0, 0xf2910004, "fd50:494c:4f54:1::f291:4"],
    [0, 0, 0, "fd50:494c:4f54::"],
    [0xffff, 0, BROADCAST_NODE, "fd50:494c:4f54:ffff::ffff:ffff"],
    [1, 2, 3, "fd50:494c:4f54:1:0:2:0:3"],
    [0, 0x10000, 1, "fd50:494c:4f54:0:1::1"],
  ])("network %i, sub-address %i, node %i is written %s", (network, subAddress, node, text) => {
    const address = { network: networkId(network), subAddress, node: nodeId(node) };
    expect(formatOverlayAddress(PREFIX, address)).toBe(text);
    expect(parseOverlayAddress(PREFIX, text)).toEqual(address);
  });

  it("are read from any writing of the same address", () => {
    for (const text of ["FD50:494C:4F54::0005", "fd50:494c:4f54:0:0:0:0:5", "fd50:494c:4f54::0.0.0.5"]) {
      expect(parseOverlayAddress(PREFIX, text)).toEqual({ network: 0, subAddress: 0, node: 5 });
    }
  });

  it.each([
    "fd50:494c:4f55::5",
    "2001:db8::5",
    "192.0.2.5",
    "fd50:494c:4f54::5%eth0",
    "fd50:494c:4f54::5/64",
    "",
    "::",
  ])("%j is none", (text) => {
    expect(parseOverlayAddress(PREFIX, text)).toBeUndefined();
  });
});

describe("overlay prefixes", () => {
  it("the default is fd and PILOT", () => {
    expect(PREFIX.text).toBe("fd50:494c:4f54::/48");
    expect(String.fromCharCode(...PREFIX.bytes.subarray(1))).toBe("PILOT");
  });

  it("are printed in canonical form", () => {
    expect(parseOverlayPrefix("FD00:0000:0001::0/48")).toMatchObject({ prefix: { text: "fd00:0:1::/48" } });
  });

  it.each([
    ["fd50:494c:4f54::/64", /48/],
    ["fd50:494c:4f54::", /48/],
    ["fd50:494c:4f54::/048", /48/],
    ["fc50:494c:4f54::/48", /unique local/],
    ["2001:db8::/48", /unique local/],
    ["fd50:494c:4f54:1::/48", /first 48/],
    ["fd50:494c:4f54::1/48", /first 48/],
    ["10.0.0.0/48", /IPv6/],
    ["fd50:494c/48", /IPv6/],
    ["/48", /IPv6/],
  ])("%s is refused with its own reason", (text, reason) => {
    expect(parseOverlayPrefix(text)).toEqual({ kind: "invalid", reason: expect.stringMatching(reason) });
  });
});

describe("reasons for refusing a Pilot address", () => {
  it.each([
    ["1:00A3.F291.0004", "the first group repeats the network: 1 is 0001, not 00A3"],
    ["pilot", 'it has no ":"; an address reads N:NNNN.HHHH.LLLL, as in 0:0000.0000.0005'],
    ["0:0.0.5", "each group must be four hex digits; an address reads N:NNNN.HHHH.LLLL, as in 0:0000.0000.0005"],
  ])("%s: %s", (text, reason) => {
    expect(parsePilotAddress(text)).toEqual({ kind: "invalid", reason });
  });
});
