/** The `.pilot` zone and the server that speaks DNS for it. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect } from "node:net";
import dnsPacket from "dns-packet";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DnsServer } from "../../src/io/dns-server.ts";
import { type Directory, type NamedHost, Zone } from "../../src/names/zone.ts";

const PREFIX = Uint8Array.of(0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54);
const BOB: NamedHost = { address: "fd50:494c:4f54::7", pilot: "0:0000.0000.0007", fingerprint: "SHA256:abc" };
const BOB_IN_OPS: NamedHost = { ...BOB, address: "fd50:494c:4f54:1::7", pilot: "1:0000.0000.0007" };
const REVERSE = "4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa";
const BOBS_REVERSE = `7.${"0.".repeat(19)}${REVERSE}`;

/** Bob is trusted and in ops; eve exists, and may not be seen. */
const directory: Directory = {
  find: (host, network) => {
    if (host !== "bob") return undefined;
    return network === undefined ? BOB : network === "ops" ? BOB_IN_OPS : undefined;
  },
  nameOf: (address) => (address[15] === 7 && address[7] === 0 ? "bob" : undefined),
};
const zone = new Zone({ prefix: PREFIX, serviceAddress: "fd50:494c:4f54:ffff::53" }, directory);

describe("the zone", () => {
  it("answers who may be seen, whatever the case, and repeats the name as it was asked", () => {
    expect(zone.answer("BOB.Pilot", "AAAA")).toEqual({
      code: "NOERROR",
      answers: [{ name: "BOB.Pilot", ttlS: 15, data: { type: "AAAA", address: BOB.address } }],
      authority: [],
    });
    expect(zone.answer("bob.pilot", "TXT").answers[0]?.data).toEqual({
      type: "TXT",
      texts: ["pilot=0:0000.0000.0007", "key=SHA256:abc"],
    });
    expect(zone.answer("bob.ops.pilot", "AAAA").answers[0]?.data).toEqual({
      type: "AAAA",
      address: BOB_IN_OPS.address,
    });
    expect(zone.answer(BOBS_REVERSE, "PTR").answers[0]?.data).toEqual({ type: "PTR", target: "bob.pilot" });
  });

  it("gives a name that may not be seen the answer of one that does not exist", () => {
    const hidden = zone.answer("eve.pilot", "AAAA");
    expect(hidden.code).toBe("NXDOMAIN");
    expect(hidden).toEqual(zone.answer("none.pilot", "AAAA"));
    expect(zone.answer("bob.other.pilot", "AAAA")).toEqual(hidden);
    expect(zone.answer("a.b.c.pilot", "AAAA")).toEqual(hidden);
    expect(zone.answer(`9${BOBS_REVERSE.slice(1)}`, "PTR").code).toBe("NXDOMAIN");
  });

  it("says that a name has nothing of a type without saying that it does not exist (RFC 2308)", () => {
    for (const type of ["A", "MX", "SRV"]) {
      expect(zone.answer("bob.pilot", type)).toMatchObject({
        code: "NOERROR",
        answers: [],
        authority: [{ name: "pilot" }],
      });
    }
  });

  it("speaks for its two zones and refuses every other name", () => {
    expect(zone.answer("pilot", "SOA").answers).toHaveLength(1);
    expect(zone.answer("pilot", "AAAA").answers[0]?.data).toEqual({ type: "AAAA", address: "fd50:494c:4f54:ffff::53" });
    expect(zone.answer(REVERSE, "SOA").answers).toHaveLength(1);
    for (const name of [
      "example.org",
      "",
      "xpilot",
      "bob.pilot.example",
      "1.0.0.127.in-addr.arpa",
      "8.b.d.0.1.0.0.2.ip6.arpa",
    ]) {
      expect([name, zone.answer(name, "AAAA").code]).toEqual([name, "REFUSED"]);
    }
  });

  it("answers any name and type at all (seed printed on failure)", () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.constantFrom("AAAA", "PTR", "ANY", "SOA", "A"),
        fc.constantFrom("", ".pilot", `.${REVERSE}`),
        (name, type, end) => {
          const { code } = zone.answer(`${name}${end}`, type);
          expect(["NOERROR", "NXDOMAIN", "REFUSED"]).toContain(code);
        },
      ),
    );
  });
});

/** What the codec gives beside what its types say. */
type Decoded = dnsPacket.DecodedPacket & { readonly rcode: string };

describe("the server", () => {
  let isLocal = true;
  const server = new DnsServer({
    ...{ address: "::1", port: 0, isLocal: () => isLocal },
    answer: (name, type) => (name === "long.pilot" ? long(name) : zone.answer(name, type)),
  });
  let port = 0;
  beforeAll(async () => {
    port = await server.listen();
  });
  afterAll(() => server.close());

  const long = (name: string) => ({
    ...{ code: "NOERROR" as const, authority: [] },
    answers: Array.from({ length: 60 }, () => ({
      name,
      ttlS: 1,
      data: { type: "TXT" as const, texts: ["x".repeat(50)] },
    })),
  });

  /** The answer, or undefined when none comes. */
  async function ask(message: Uint8Array, waitMs = 2_000): Promise<Decoded | undefined> {
    const socket = createSocket("udp6");
    try {
      socket.send(message, port, "::1");
      const [bytes] = await once(socket, "message", { signal: AbortSignal.timeout(waitMs) });
      return dnsPacket.decode(bytes) as Decoded;
    } catch {
      return undefined;
    } finally {
      socket.close();
    }
  }

  const query = (name: string, more: Partial<dnsPacket.Packet> = {}) =>
    dnsPacket.encode({ type: "query", id: 7, flags: 0x100, questions: [{ name, type: "AAAA", class: "IN" }], ...more });

  it("answers over UDP, as an authority, with the question's number and wish", async () => {
    const reply = await ask(query("bob.pilot"));
    expect(reply).toMatchObject({ id: 7, rcode: "NOERROR", flag_aa: true, flag_rd: true, flag_ra: false });
    expect(reply?.answers).toMatchObject([{ type: "AAAA", data: BOB.address, ttl: 15 }]);
    expect((await ask(query("eve.pilot")))?.rcode).toBe("NXDOMAIN");
    expect(await ask(query("example.org"))).toMatchObject({ rcode: "REFUSED", flag_aa: false });
  });

  it("answers over TCP, several questions in one piece, also when they come byte by byte", async () => {
    const socket = connect(port, "::1");
    const frame = (message: Buffer) => Buffer.concat([Buffer.from([0, message.length]), message]);
    const two = Buffer.concat([frame(query("bob.pilot")), frame(query("eve.pilot"))]);
    for (const byte of two) socket.write(Uint8Array.of(byte));
    let got = Buffer.alloc(0);
    const codes: string[] = [];
    for await (const bytes of socket) {
      got = Buffer.concat([got, bytes]);
      while (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0)) {
        codes.push((dnsPacket.decode(got.subarray(2, 2 + got.readUInt16BE(0))) as Decoded).rcode);
        got = got.subarray(2 + got.readUInt16BE(0));
      }
      if (codes.length === 2) break;
    }
    expect(codes).toEqual(["NOERROR", "NXDOMAIN"]);
  });

  it("says that an answer is cut where it does not fit, and gives the whole with EDNS only up to what fits everywhere", async () => {
    const opt = (size: number) => ({
      additionals: [
        { type: "OPT", name: ".", udpPayloadSize: size, flags: 0, options: [] } as unknown as dnsPacket.Answer,
      ],
    });
    expect(await ask(query("long.pilot"))).toMatchObject({ flag_tc: true, answers: [] });
    expect(await ask(query("long.pilot", opt(4096)))).toMatchObject({ flag_tc: true, answers: [] });
    const reply = await ask(query("bob.pilot", opt(1232)));
    expect(reply?.additionals).toMatchObject([{ type: "OPT", udpPayloadSize: 1232 }]);
    expect((await ask(query("bob.pilot")))?.additionals).toEqual([]);
  });

  it("refuses what it does not know, and says nothing to answers", async () => {
    const two = {
      questions: [
        { name: "bob.pilot", type: "AAAA" },
        { name: "bob.pilot", type: "TXT" },
      ],
    } as const;
    expect((await ask(query("bob.pilot", two as never)))?.rcode).toBe("FORMERR");
    expect((await ask(query("bob.pilot", { flags: 0x2900 })))?.rcode).toBe("NOTIMP");
    expect((await ask(Uint8Array.of(0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 200)))?.rcode).toBe("FORMERR");
    const response = dnsPacket.encode({ type: "response", id: 1, questions: [{ name: "bob.pilot", type: "AAAA" }] });
    expect(await ask(response, 200)).toBeUndefined();
    expect(await ask(Uint8Array.of(1, 2, 3), 200)).toBeUndefined();
  });

  it("says nothing to another machine", async () => {
    isLocal = false;
    expect(await ask(query("bob.pilot"), 200)).toBeUndefined();
    const socket = connect(port, "::1");
    await once(socket, "close");
    isLocal = true;
    expect(server.counters.refused).toBe(2);
  });

  it("lives on, whatever it is sent (seed printed on failure)", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 80 }), fc.boolean(), async (bytes, whole) => {
        const message = whole ? Buffer.concat([query("bob.pilot").subarray(0, 12), bytes]) : bytes;
        const socket = createSocket("udp6");
        await new Promise((resolve) => socket.send(message, port, "::1", resolve));
        socket.close();
        await new Promise((resolve) => setImmediate(resolve)); // the server reads in this very process
      }),
      { numRuns: 300 },
    );
    expect((await ask(query("bob.pilot")))?.rcode).toBe("NOERROR");
  });
});
