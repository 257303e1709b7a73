import { expect, it } from "vitest";
import { localAddresses } from "../../src/io/local-addresses.ts";
import { defaultRoutesIn, interfacesIn } from "../../src/io/underlay-watch.ts";

it("an interface is known by index and name, so that one made anew is another", () => {
  const text =
    "2    eth0            1     0     333300000001\n2    eth0            1     0     01005e000001\n7    lan0  1 0 ff\n";
  expect(interfacesIn(text)).toEqual([
    { index: "2", name: "eth0" },
    { index: "7", name: "lan0" },
  ]);
  expect(interfacesIn("")).toEqual([]);
});

it("default routes are those to everywhere, by interface and gateway", () => {
  const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
  const route = (destination: string, mask: string) =>
    `eth0\t${destination}\t0101A8C0\t0003\t0\t0\t0\t${mask}\t0\t0\t0\n`;
  const text = head + route("00000000", "00000000") + route("0001A8C0", "00FFFFFF") + route("00000000", "00000080");
  expect(defaultRoutesIn(text)).toEqual(["eth0 0101A8C0"]);
});

it("local addresses leave out loopback and link-local ones", () => {
  for (const { address, prefixLength } of localAddresses("no-such-interface")) {
    expect(address).not.toMatch(/^(127\.|169\.254\.|::1$|fe80)/);
    expect(prefixLength).toBeGreaterThan(0);
  }
});
