/** Names under .pilot, asked by real programs. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, waitUntil } from "../helpers/lab.ts";

const SERVICE = "fd50:494c:4f54:ffff::53";
let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("names", { hosts: ["a", "b", "c"] });
  await lab.startRendezvous();
  for (const host of ["a", "b", "c"]) await lab.startNode(host);
  await lab.trust("a", "b");
}, 60_000);

afterAll(() => lab?.close());

/** Status and the answers' data, by dig. */
async function dig(host: string, ...words: string[]): Promise<{ status: string; data: string[] }> {
  const { stdout } = await lab.exec(host, "dig", [`@${SERVICE}`, "+tries=1", "+time=3", "+noidnin", ...words]);
  const status = /status: (\w+)/.exec(stdout)?.[1] ?? "none";
  const answers = /;; ANSWER SECTION:\n((?:[^;\n].*\n)*)/.exec(stdout)?.[1] ?? "";
  return {
    status,
    data: answers
      .split("\n")
      .filter(Boolean)
      .map((line) => line.split(/\s+/).slice(4).join(" ")),
  };
}

describe("names under .pilot", () => {
  it("resolve for who is trusted, over UDP and TCP, and back", async () => {
    await waitUntil("a to know b's name", async () => (await dig("a", "b.pilot", "AAAA")).status === "NOERROR");
    expect((await dig("a", "b.pilot", "AAAA")).data).toEqual([lab.overlay("b")]);
    expect((await dig("a", "+tcp", "b.pilot", "AAAA")).data).toEqual([lab.overlay("b")]);
    expect((await dig("a", "-x", lab.overlay("b"))).data).toEqual(["b.pilot."]);
    const [text] = (await dig("a", "b.pilot", "TXT")).data;
    expect(text).toMatch(/^"pilot=0:\S+" "key=SHA256:\S+"$/);
    expect((await dig("a", "a.pilot", "AAAA")).data).toEqual([lab.overlay("a")]);
  });

  it("do not exist for a stranger: the answer of a name that nobody has", async () => {
    const [hidden, none] = [await dig("c", "b.pilot", "AAAA"), await dig("c", "nobody.pilot", "AAAA")];
    expect(hidden).toEqual({ status: "NXDOMAIN", data: [] });
    expect(hidden).toEqual(none);
    expect((await dig("c", "-x", lab.overlay("b"))).status).toBe("NXDOMAIN");
  });

  it("end with trust, and other names were never answered", async () => {
    expect((await dig("a", "example.org", "AAAA")).status).toBe("REFUSED");
    await lab.pilot("a", "trust", "revoke", "b");
    expect((await dig("a", "b.pilot", "AAAA")).status).toBe("NXDOMAIN");
    await lab.trust("a", "b");
  });

  it("go on with the registry down, also after a restart", async () => {
    await lab.rendezvous.stop();
    await lab.stopNode("a");
    await lab.startNode("a");
    expect((await dig("a", "b.pilot", "AAAA")).data).toEqual([lab.overlay("b")]);
  });

  it("leave the host's own files alone", async () => {
    const before = await lab.exec("a", "cat", ["/etc/resolv.conf", "/etc/hosts"]);
    await lab.stopNode("b");
    const after = await lab.exec("a", "cat", ["/etc/resolv.conf", "/etc/hosts"]);
    expect(after.stdout).toBe(before.stdout);
  });
});
