/**
 * Names under .pilot by way of the host's own resolver: systemd-resolved with D-Bus and polkit, out of packages that are
 * unpacked and not installed, and a daemon with the privileges and the user of its unit; dnsmasq with the documented lines.
 */
import { chownSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ExecResult, LAUNCHER, Lab, waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PROGRAMS = `${ROOT}node_modules/.lab-programs`;
/** As resolved-host.sh has it. */
const DAEMON_UID = 71_054;
const CAPABILITIES = "+net_admin,+net_bind_service";

let lab: Lab;
/** A process inside the host that resolved-host.sh makes of `a`. */
let insider: number;

beforeAll(async () => {
  if (!existsSync(`${PROGRAMS}/.complete`))
    throw new Error("systemd-resolved is not there: run scripts/setup with a network");
  lab = await Lab.create("resolved", { hosts: ["a", "b"] });
  for (const path of [`${lab.folder}/a-state`, `${lab.folder}/run-a`]) {
    mkdirSync(path, { mode: 0o700 });
    chownSync(path, DAEMON_UID, DAEMON_UID);
  }
  mkdirSync(`${lab.folder}/host`);
  await startUpstream();
  const words = [`${lab.folder}/host`, PROGRAMS, lab.network.addressOf("net")];
  const host = lab.spawn("a", `${ROOT}test/helpers/resolved-host.sh`, words);
  await host.waitForLine(/^started/, 15_000, "stdout");
  insider = Number(readFileSync(`/proc/${host.pid}/task/${host.pid}/children`, "utf8").trim().split(" ")[0]);
  await lab.startRendezvous();
  writeFileSync(`${lab.folder}/launch`, launchScript(), { mode: 0o755 });
  const env = { PATH: `${PROGRAMS}/usr/bin:${process.env.PATH}` };
  await lab.startNode("a", { launcher: `${lab.folder}/launch`, env, control: `${lab.folder}/run-a/control.sock` });
  await lab.startNode("b");
  await lab.trust("a", "b");
}, 60_000);

afterAll(() => lab?.close());

/** As the unit starts it: a user of its own with two capabilities. */
function launchScript(): string {
  const user = `--reuid=${DAEMON_UID} --regid=${DAEMON_UID} --clear-groups`;
  const privileges = `--inh-caps=${CAPABILITIES} --ambient-caps=${CAPABILITIES} --bounding-set=-all,${CAPABILITIES}`;
  const enter = `nsenter --target ${insider} --mount --pid --`;
  return `#!/bin/sh\nexec ${enter} setpriv ${user} ${privileges} --no-new-privs ${LAUNCHER} "$@"\n`;
}

/** The rest of the world's names: one, and a list of what was asked. */
async function startUpstream(): Promise<void> {
  const words = [
    "--keep-in-foreground",
    "--no-resolv",
    "--no-hosts",
    "--conf-file=/dev/null",
    "--pid-file=",
    "--user=root",
  ];
  const more = ["--log-queries", "--log-facility=-", "--address=/example.org/192.0.2.7", "--bind-interfaces"];
  upstream = lab.spawn("net", "dnsmasq", [...words, ...more, `--listen-address=${lab.network.addressOf("net")}`]);
  await upstream.waitForLine(/started/);
}
let upstream: LabProcess;
const asked = (): string => upstream.stdout + upstream.stderr;
/** Of what was asked, how much before the names were wired: until then they go where all names go. */
let askedBefore = 0;

/** A program on `a`, as the host is for its programs. */
function onHost(...command: readonly string[]): Promise<ExecResult> {
  const env = { PATH: `${PROGRAMS}/usr/bin:${process.env.PATH}` };
  return lab.exec("a", "nsenter", ["--target", String(insider), "--mount", "--pid", "--", ...command], { env });
}

const wiring = async (): Promise<string> => (await lab.status("a")).dns.resolved;

/** Ends resolved; resolved-host.sh starts it again. */
async function restartResolved(): Promise<void> {
  const { stdout } = await onHost("sh", "-c", "cd /proc; grep -lx systemd-resolve [0-9]*/comm | cut -d/ -f1");
  const [pid, ...others] = stdout.trim().split("\n");
  expect(others).toEqual([]);
  await onHost("kill", pid!);
  await waitUntil("it to have ended", async () => (await onHost("kill", "-0", pid!)).code !== 0);
}

describe("a host with systemd-resolved", () => {
  it("lets only root tell it of names, without the rule for polkit that the package brings", async () => {
    await waitUntil("the daemon to be refused", async () => (await wiring()) === "refused");
    const { problems } = await lab.status("a");
    expect(problems.map(({ code }: { code: string }) => code)).toContain("dns_not_wired");
  });

  it("is told by a daemon without root's rights, with that rule, and again whenever resolved starts anew", async () => {
    copyFileSync(`${ROOT}systemd/pilot-tun.rules`, `${lab.folder}/host/rules/pilot-tun.rules`);
    for (let round = 0; round < 2; round++) {
      await restartResolved();
      await waitUntil(
        "the names to resolve",
        async () => (await onHost("resolvectl", "query", "b.pilot")).code === 0,
        20_000,
      );
    }
    await waitUntil("the daemon to say so", async () => (await wiring()) === "applied", 20_000);
    expect((await onHost("resolvectl", "domain", "pilot0")).stdout).toMatch(/: ~pilot ~\S+ip6\.arpa\n/);
    expect((await onHost("resolvectl", "default-route", "pilot0")).stdout).toMatch(/: no\n/);
  });

  it("finds peers for unmodified programs, by name and by address", async () => {
    const b = lab.overlay("b");
    askedBefore = asked().length;
    expect((await onHost("resolvectl", "query", "b.pilot")).stdout).toContain(`${b} `);
    expect((await onHost("getent", "ahostsv6", "b.pilot")).stdout).toContain(b);
    expect((await onHost("dig", "@127.0.0.53", "+short", "b.pilot", "AAAA")).stdout.trim()).toBe(b);
    expect((await onHost("resolvectl", "query", b)).stdout).toContain("b.pilot");
    expect((await onHost("ping", "-6", "-c", "1", "-W", "3", "b.pilot")).code).toBe(0);
    expect((await onHost("getent", "ahosts", "nobody.pilot")).code).not.toBe(0);
  });

  it("asks for other names where it always did, and for .pilot nowhere else", async () => {
    expect((await onHost("getent", "ahostsv4", "example.org")).stdout).toContain("192.0.2.7");
    const askedSince = asked().slice(askedBefore);
    expect(askedSince).toContain("example.org");
    expect(askedSince).not.toContain("pilot");
  });
});

describe("a daemon with no more rights than its unit gives", () => {
  it("carries the packets of pilot-tun run, whose programs ask neither resolved nor the network for names", async () => {
    const inside = (...command: string[]) =>
      onHost(LAUNCHER, "--control", lab.node("a").control, "run", "--", ...command);
    expect((await inside("ping", "-6", "-c", "1", "-W", "3", "b.pilot")).code).toBe(0);
    expect((await inside("getent", "ahostsv4", "example.org")).code).toBe(2);
  });
});

describe("a host with dnsmasq", () => {
  it("finds them with the two lines of the documentation, and other names as before", async () => {
    const documented = readFileSync(`${ROOT}docs/names.md`, "utf8");
    const lines = documented.match(/^ {4}(?:server|rev-server)=.*$/gm)!.map((line) => line.trim());
    expect(lines).toHaveLength(2);
    const { stdout } = await lab.exec("b", LAUNCHER, ["--control", lab.node("b").control, "doctor", "dns"]);
    expect(stdout).toContain(lines[0]);
    const others = `server=${lab.network.addressOf("net")}`;
    const settings = ["no-resolv", "no-hosts", "bind-interfaces", "listen-address=127.0.0.1", "pid-file=", "user=root"];
    writeFileSync(`${lab.folder}/dnsmasq.conf`, [...settings, others, ...lines].join("\n"));
    const resolver = lab.spawn("b", "dnsmasq", [
      "--keep-in-foreground",
      "--log-facility=-",
      `--conf-file=${lab.folder}/dnsmasq.conf`,
    ]);
    await resolver.waitForLine(/started/);
    const dig = async (...words: string[]) =>
      (await lab.exec("b", "dig", ["@127.0.0.1", "+short", ...words])).stdout.trim();
    expect(await dig("a.pilot", "AAAA")).toBe(lab.overlay("a"));
    expect(await dig("-x", lab.overlay("a"))).toBe("a.pilot.");
    expect(await dig("example.org")).toBe("192.0.2.7");
  });
});
