/** What a daemon that root starts by hand has left while it runs, in each of its threads, and that it can do its work so. */
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CAPABILITY, type Capability, hasAll, ownPrivileges } from "../../src/io/privileges.ts";
import { LAUNCHER, Lab } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";

const NOBODY = 65_534;
/** Nobody's number on any host: only a folder has it. */
const STRANGER = 71_030;
const OF_DAEMON: readonly Capability[] = ["NET_ADMIN", "NET_BIND_SERVICE"];

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.create("privileges", { hosts: ["a", "b", "c"] });
  mkdirSync(inLab("rendezvous"), { mode: 0o700 });
  chownSync(inLab("rendezvous"), STRANGER, STRANGER);
  await lab.startRendezvous(["--tls-self-signed"]);
  await lab.startNode("a");
  await startB("root"); // what root leaves, its next user finds
  await lab.stopNode("b");
  await startB("nobody");
  await lab.trust("a", "b");
}, 60_000);

afterAll(() => lab?.close());

const inLab = (name: string) => join(lab.folder, name);
const startB = (user: string) =>
  lab.startNode("b", { extraArgs: ["--user", user], control: inLab(`run-${user}/control.sock`) });

interface ThreadFacts {
  readonly users: string;
  readonly groups: string;
  /** Of every set. */
  readonly capabilities: readonly bigint[];
  readonly noNewPrivileges: string;
}

/** One for each thread. */
function threadsOf({ pid }: LabProcess): ThreadFacts[] {
  return readdirSync(`/proc/${pid}/task`).map((task) => {
    const status = readFileSync(`/proc/${pid}/task/${task}/status`, "utf8");
    const field = (name: string) => new RegExp(`^${name}:\\t(.*?) *$`, "m").exec(status)?.[1] ?? "missing";
    return {
      users: `${field("Uid")} / ${field("Gid")}`,
      groups: field("Groups"),
      capabilities: ["CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"].map((set) => BigInt(`0x${field(set)}`)),
      noNewPrivileges: field("NoNewPrivs"),
    };
  });
}

function expectThreads(process: LabProcess, uid: number, groups: string, capabilities: readonly Capability[]): void {
  const set = capabilities.reduce((sum, name) => sum | (1n << BigInt(CAPABILITY[name])), 0n);
  const ids = Array.from({ length: 4 }, () => String(uid)).join("\t");
  const wanted = { users: `${ids} / ${ids}`, groups, capabilities: Array.from({ length: 5 }, () => set) };
  const threads = threadsOf(process);
  expect(threads.length).toBeGreaterThan(4); // those of V8 and of libuv among them
  for (const thread of threads) expect(thread).toEqual({ ...wanted, noNewPrivileges: "1" });
}

/** The right to go before other programs is a limit; SYS_NICE stands for it only where root may not raise limits. */
function ofDaemon(): readonly Capability[] {
  const { permitted } = ownPrivileges();
  const mayRaiseLimits = (permitted >> 24n) & 1n;
  return mayRaiseLimits || !hasAll(permitted, ["SYS_NICE"]) ? OF_DAEMON : [...OF_DAEMON, "SYS_NICE"];
}

/** Root who stays root stays in the groups that he came with. */
const ownGroups = () => /^Groups:\t(.*?) *$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "missing";

describe("a daemon that root starts", () => {
  it("has the few capabilities it needs in every set of every thread, and no way to more", () => {
    expectThreads(lab.node("a").process, 0, ownGroups(), ofDaemon());
  });

  it("becomes the user that it is told, with the same capabilities", () => {
    expectThreads(lab.node("b").process, NOBODY, String(NOBODY), ofDaemon());
  });

  it("takes over the state that root left, and owns its socket's folder", () => {
    const state = lab.node("b").stateDir;
    const files = ["", "identity.json", "node.json", "lock", "audit", "audit/anchor.json"].map((name) =>
      join(state, name),
    );
    for (const path of [...files.filter((file) => existsSync(file)), inLab("run-nobody")])
      expect([path, statSync(path).uid]).toEqual([path, NOBODY]);
    expect(existsSync(join(state, "identity.json"))).toBe(true);
    expect(statSync(state).mode & 0o777).toBe(0o700);
  });

  it("is whose its state folder is, unless told otherwise: here a rendezvous, which needs low ports alone", () => {
    expectThreads(lab.rendezvous, STRANGER, String(STRANGER), ["NET_BIND_SERVICE"]);
    for (const name of ["rendezvous.db", "tls-key.pem", "admin.sock"])
      expect([name, statSync(inLab(`rendezvous/${name}`)).uid]).toEqual([name, STRANGER]);
  });

  it("keeps what it takes to see programs when asked to", async () => {
    await lab.startNode("c", { extraArgs: ["--see-programs"] });
    expectThreads(lab.node("c").process, 0, ownGroups(), [...ofDaemon(), "SYS_PTRACE", "DAC_READ_SEARCH"]);
    await lab.stopNode("c");
  });
});

describe("what it does with that", () => {
  const ping = async (from: string, to: string) =>
    (await lab.exec(from, "ping", ["-6", "-c", "2", "-i", "0.2", "-W", "2", lab.overlay(to)])).stdout;

  it("carries packets, answers names at port 53, and gives ports to guests", async () => {
    expect(await ping("a", "b")).toContain("2 received");
    expect(await ping("b", "a")).toContain("2 received");
    const dig = ["+short", "+time=2", "@fd50:494c:4f54:ffff::53", "a.pilot", "AAAA"];
    expect((await lab.exec("b", "dig", dig)).stdout.trim()).toBe(lab.overlay("a"));
    const run = ["--control", lab.node("b").control, "run", "--", "ping", "-6", "-c", "1", "-W", "2", lab.overlay("a")];
    expect((await lab.exec("b", LAUNCHER, run)).stdout).toContain("1 received");
  });

  it("goes on with its number, its trust and its interface after a reload and a restart", async () => {
    const { node } = lab.node("b");
    await lab.pilot("b", "reload");
    await lab.stopNode("b");
    await startB("nobody");
    expect(lab.node("b").node).toBe(node);
    expect(await ping("b", "a")).toContain("2 received");
  });
});

describe("whoever asks for what cannot be", () => {
  const refusal = async (...extraArgs: string[]) => {
    const ended = lab.spawnNode("c", { extraArgs });
    await ended.waitForEnd(15_000);
    return JSON.parse(ended.stdout).error;
  };

  it("is told so: a user who is not there, and a state folder of somebody else", async () => {
    expect(await refusal("--user", "no-such-user-here")).toMatchObject({ code: "unknown_user" });
    chownSync(inLab("c-state"), STRANGER, STRANGER);
    expect(await refusal("--user", "nobody")).toMatchObject({ code: "state_unwritable" });
    expect(statSync(inLab("c-state")).uid).toBe(STRANGER);
  });

  it("does not get a folder of root's that is there for something else", async () => {
    chownSync(inLab("c-state"), 0, 0);
    writeFileSync(inLab("c-state/letters"), "dear root");
    for (const name of readdirSync(inLab("c-state"))) chownSync(inLab(`c-state/${name}`), 0, 0);
    const marks = ["identity.json", "node.json"].filter((name) => existsSync(inLab(`c-state/${name}`)));
    expect(marks).toEqual(["identity.json", "node.json"]); // of the daemon before: with them the folder would be its own
    mkdirSync(inLab("c-state/mail"));
    expect(await refusal("--user", "nobody")).toMatchObject({ code: "state_unwritable" });
    expect(statSync(inLab("c-state/letters")).uid).toBe(0);
  });

  it("does not lose the key that a service manager gave to root", async () => {
    mkdirSync(inLab("credentials"), { mode: 0o700 });
    const env = { CREDENTIALS_DIRECTORY: inLab("credentials") };
    const ended = lab.spawnNode("c", { extraArgs: ["--user", "nobody"], env });
    await ended.waitForEnd(15_000);
    const message = `The user nobody may not read ${inLab("credentials")}`;
    expect(JSON.parse(ended.stdout).error).toMatchObject({ code: "not_privileged", message });
  });

  it("is not somebody who is not root", async () => {
    const words = ["--reuid", String(NOBODY), "--regid", String(NOBODY), "--clear-groups", LAUNCHER, "--json", "up"];
    const where = ["--registry", lab.registry, "--beacon", lab.beacon, "--user", "root"];
    const { stdout } = await lab.exec("c", "setpriv", [...words, ...where]);
    expect(JSON.parse(stdout).error).toMatchObject({ code: "not_privileged", message: "Only root may become root" });
  });
});
