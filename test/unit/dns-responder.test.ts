/** What fuzzing found about the codec of DNS messages. */
import dnsPacket from "dns-packet";
import { expect, it } from "vitest";
import { DnsResponder } from "../../src/io/dns-responder.ts";

const empty = { code: "NXDOMAIN", answers: [], authority: [] } as const;

function query(labels: readonly (readonly number[])[]): Buffer {
  const name = labels.flatMap((label) => [label.length, ...label]);
  return Buffer.from([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...name, 0, 0, 28, 0, 1]);
}

it.each([
  ["a point inside a label", [[0x2e], [0x61]]],
  ["bytes that are no text", [new Array<number>(63).fill(0xff)]],
  ["a space", [[0x61, 0x20]]],
])("answers a question whose name has %s with a message that can be read", (_, labels) => {
  const responder = new DnsResponder(() => empty);
  for (const transport of ["udp", "tcp"] as const) {
    const reply = responder.respond(query(labels), transport)!;
    expect(dnsPacket.decode(reply)).toMatchObject({ id: 7, type: "response", rcode: "FORMERR", questions: [] });
  }
});

it("repeats a name of ordinary characters as it was asked", () => {
  const reply = new DnsResponder(() => empty).respond(query([[...Buffer.from("_A-b")], [0x78]]), "udp")!;
  expect(dnsPacket.decode(reply)).toMatchObject({ rcode: "NXDOMAIN", questions: [{ name: "_A-b.x" }] });
});
