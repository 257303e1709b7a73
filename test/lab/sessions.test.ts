/** Keys of sessions with real daemons: what peers are shown to have, and a transfer over which keys are replaced. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { LAUNCHER, Lab, waitUntil } from "../helpers/lab.ts";
import { datagramsOf } from "../helpers/pcap.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

let lab: Lab;
const URGENT = ["--rekey-every", "5s"];

beforeAll(async () => {
  lab = await Lab.create("sessions");
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a", { extraArgs: URGENT }), lab.startNode("b", { extraArgs: URGENT })]);
  await lab.trust("a", "b");
});

afterAll(() => lab?.close());

const sessionOf = async (host: string): Promise<string> => (await lab.status(host)).peers[0].session;
const waitForNoise = (host: string, timeoutMs?: number) =>
  waitUntil(
    `${host} to have a session with keys of its own`,
    async () => (await sessionOf(host)) === "noise",
    timeoutMs,
  );

it("two nodes have sessions with keys of their own, and every list of peers says so", async () => {
  await Promise.all([waitForNoise("a"), waitForNoise("b")]);
  const { stdout } = await lab.exec("a", LAUNCHER, ["--control", lab.node("a").control, "peers"]);
  expect(stdout).toMatch(/SESSION/);
  expect(stdout).toMatch(/noise/);
  const shown = await lab.exec("a", LAUNCHER, ["--control", lab.node("a").control, "show"]);
  expect(shown.stdout).toContain("session: noise, forward secret");
  for (const host of ["a", "b"]) {
    await waitUntil(`${host} to have it written that the other agrees on keys`, () => {
      const { records } = JSON.parse(readFileSync(`${lab.node(host).stateDir}/trust.json`, "utf8"));
      return records.length === 1 && records[0].agrees_on_keys === true;
    });
  }
});

it("a transfer of 16 s goes on while keys are replaced, byte for byte, in frames of which only the prefix changes", async () => {
  const folder = `${lab.folder}/www`;
  mkdirSync(folder);
  const body = Buffer.alloc(48 * 1024 * 1024, Buffer.from(seededBytes(9)(65_521)));
  writeFileSync(`${folder}/file`, body);
  const where = ["--bind", lab.overlay("b"), "-d", folder];
  const server = lab.spawn("b", "python3", ["-u", "-m", "http.server", "8000", ...where]);
  await server.waitForLine(/Serving HTTP/);
  const file = `${lab.folder}/wire.pcap`;
  const between = `udp and host ${lab.network.addressOf("a")} or host ${lab.network.address6Of("a")}`;
  const filter = `${between} and not port 9001`;
  const capture = lab.spawn("b", "tcpdump", ["-i", "eth0", "-s", "96", "-U", "-w", file, filter]);
  await capture.waitForLine(/listening on/);
  const url = `http://[${lab.overlay("b")}]:8000/file`;
  const got = `${lab.folder}/got`;
  const { code } = await lab.exec("a", "curl", ["-gsf", "--limit-rate", "3M", "-m", "60", "-o", got, url], {
    timeoutMs: 70_000,
  });
  await capture.stop();
  expect(code).toBe(0);
  expect(sha256(readFileSync(got))).toBe(sha256(body));
  const datagrams = datagramsOf(readFileSync(file));
  expect(datagrams.length).toBeGreaterThan(500);
  expect([...new Set(datagrams.map((bytes) => bytes.toString("latin1", 0, 4)))]).toEqual(["PILS"]);
  const { node } = lab.node("b");
  const prefixes = new Set(
    datagrams.filter((bytes) => bytes.readUInt32BE(4) === node).map((bytes) => bytes.toString("hex", 8, 12)),
  );
  expect(prefixes.size).toBeGreaterThanOrEqual(3);
  expect((await lab.status("a")).drops["base-session"]).toBeUndefined();
});

it("a peer that was killed has such a session again as soon as it is back", async () => {
  await lab.stopNode("b", "SIGKILL");
  await lab.startNode("b", { extraArgs: URGENT });
  const { stdout } = await lab.exec("a", "ping", ["-6", "-c", "10", "-i", "0.3", "-W", "1", lab.overlay("b")]);
  expect(Number(/(\d+) received/.exec(stdout)?.[1])).toBeGreaterThan(0);
  await Promise.all([waitForNoise("a"), waitForNoise("b")]);
  expect((await lab.status("a")).problems).toEqual([]);
});

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
