/** DNS messages of any program of this host, over both transports, and the zone behind them. */
import dnsPacket from "dns-packet";
import { DnsResponder } from "../../../src/io/dns-responder.ts";
import { type NamedHost, Zone } from "../../../src/names/zone.ts";
import { demand, FuzzInput, textOf } from "../input.ts";

const BOB: NamedHost = {
  address: "fd50:494c:4f54::2",
  pilot: "0:0000.0000.0002",
  fingerprint: `SHA256:${"A".repeat(43)}`,
};
const zone = new Zone(
  { prefix: Uint8Array.of(0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54), serviceAddress: "fd50:494c:4f54::1" },
  {
    find: (host, network) => (host === "bob" && (network === undefined || network === "ops") ? BOB : undefined),
    nameOf: (address) => (address[15] === 2 ? "bob" : undefined),
  },
);

export function fuzz(data: Uint8Array): void {
  const input = new FuzzInput(data);
  const transport = input.pick(["udp", "tcp"] as const);
  const message = Buffer.from(input.rest());
  zone.answer(textOf(message), "AAAA");
  const responder = new DnsResponder((name, type) => zone.answer(name, type));
  const reply = responder.respond(message, transport);
  if (reply === undefined) {
    demand(message.length < 12 || (message[2]! & 0x80) !== 0, "only answers and stubs are met with silence");
    return;
  }
  demand(
    reply.length >= 12 && reply.readUInt16BE(0) === message.readUInt16BE(0),
    "a reply bears the question's number",
  );
  demand((reply[2]! & 0x80) !== 0, "a reply is marked as one");
  if (transport === "udp") demand(reply.length <= 1232, "a datagram fits everywhere", reply.length);
  demand(reply.length <= 65_535, "a reply fits its length field", reply.length);
  dnsPacket.decode(reply);
}
