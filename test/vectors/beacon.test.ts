import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fromHex, toHex } from "../../src/base/bytes.ts";
import { instant } from "../../src/base/instant.ts";
import { BeaconServer } from "../../src/rendezvous/beacon.ts";
import { encodeDiscoverReply, encodePunchCommand, parseBeaconToNode } from "../../src/wire/beacon.ts";
import { parseEndpoint } from "../../src/wire/underlay-address.ts";

const vectors = JSON.parse(readFileSync(new URL("beacon.json", import.meta.url), "utf8"));

interface Exchange {
  readonly name: string;
  readonly from: string;
  readonly sent: string;
  readonly [received: `received_at_${string}`]: string;
}

/** The recorded beacon believes a sync from anybody; ours has no sync. */
const THROUGH_SYNC = "relay 1->5 (known through sync)";

const beacon = new BeaconServer();

test.each((vectors.transcript as Exchange[]).map((exchange) => [exchange.name, exchange] as const))(
  "replayed: %s",
  (name, exchange) => {
    const sent = fromHex(exchange.sent)!;
    const received = beacon.handleDatagram(sent, parseEndpoint(exchange.from)!, instant(1));
    const ours = received.map(({ to, bytes }) => [`received_at_${to.address}:${to.port}`, toHex(bytes)]);
    const theirs = Object.entries(exchange).filter(([key]) => key.startsWith("received_at_"));
    expect(Object.fromEntries(ours)).toEqual(name === THROUGH_SYNC ? {} : Object.fromEntries(theirs));
  },
);

test("IPv6 endpoints are written with 16 bytes and read back", () => {
  const endpoint = parseEndpoint("[2001:db8::1]:4000")!;
  const forms = vectors.ipv6Form;
  expect(toHex(encodeDiscoverReply(endpoint)!)).toBe(forms["discover_reply_2001:db8::1_port_4000"]);
  expect(toHex(encodePunchCommand(endpoint)!)).toBe(forms["punch_command_2001:db8::1_port_4000"]);
  expect(parseBeaconToNode(encodeDiscoverReply(endpoint)!)).toEqual({ kind: "discover-reply", endpoint });
  expect(parseBeaconToNode(encodePunchCommand(endpoint)!)).toEqual({ kind: "punch-command", endpoint });
});
