/** Keys, tokens and passphrases are where they belong and nowhere else: not in output, /proc, readable files or core files. */
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { LAUNCHER, Lab } from "../helpers/lab.ts";

const NOBODY = 65_534;
const ADMIN_TOKEN = "admin-6f1c0a-token-of-the-operator";
const JOIN_TOKEN = "join-93b2d7-token-of-the-network";
const PASSPHRASE = "seven quiet herons cross the winter estuary";
/** As a unit of the system runs it: an ordinary user, one capability, and core files as large as they come. */
const AS_NOBODY = [
  ...["setpriv", "--reuid", String(NOBODY), "--regid", String(NOBODY), "--clear-groups", "--no-new-privs"],
  ...["--inh-caps", "-all,+net_admin", "--ambient-caps", "-all,+net_admin", "--bounding-set", "-all,+net_admin"],
];

let lab: Lab;
let cores: string;

beforeAll(async () => {
  lab = await Lab.create("secrets", { hosts: ["a", "b"] });
  cores = inLab("cores");
  for (const folder of [cores, inLab("b-state"), inLab("run-b")]) {
    mkdirSync(folder, { mode: 0o700 });
    chownSync(folder, NOBODY, NOBODY);
  }
  for (const [name, secret] of [
    ["admin.token", ADMIN_TOKEN],
    ["join.token", JOIN_TOKEN],
    ["passphrase", PASSPHRASE],
  ] as const) {
    writeFileSync(inLab(name), `${secret}\n`, { mode: 0o600 });
  }
  writeFileSync(
    inLab("as-nobody"),
    `#!/bin/sh\nulimit -c unlimited && cd ${cores} && exec ${AS_NOBODY.join(" ")} "$@"\n`,
  );
  writeFileSync(inLab("up-as-nobody"), `#!/bin/sh\nexec ${inLab("as-nobody")} ${LAUNCHER} "$@"\n`);
  for (const script of ["as-nobody", "up-as-nobody"]) chmodSync(inLab(script), 0o755);

  writeFileSync(inLab("a.policy"), "allow in any from trusted\nallow out any to trusted\n");
  await lab.startRendezvous(["--admin-token-file", inLab("admin.token")]);
  await lab.startNode("a", { extraArgs: ["--policy", inLab("a.policy")] });
  await lab.startNode("b", { launcher: inLab("up-as-nobody"), control: inLab("run-b/control.sock") });
  await lab.trust("a", "b");
});

afterAll(() => lab?.close());

const inLab = (name: string) => join(lab.folder, name);

/** Each in every form in which it could have been written. */
function secretsOf(...stateDirs: readonly string[]): Map<string, readonly Buffer[]> {
  const found = new Map<string, readonly Buffer[]>();
  for (const text of [ADMIN_TOKEN, JOIN_TOKEN, PASSPHRASE]) found.set(text, formsOf(Buffer.from(text)));
  for (const folder of stateDirs) {
    const { private_key } = JSON.parse(readFileSync(join(folder, "identity.json"), "utf8"));
    const seed = Buffer.from(private_key, "base64").subarray(0, 32);
    found.set(`identity key of ${folder}`, formsOf(seed));
    found.set(`exchange key of ${folder}`, formsOf(Buffer.from(new NodeCrypto().x25519OfSeed(seed))));
  }
  return found;
}

/** The first half is enough to be found by, also where more follows in the same base64. */
function formsOf(secret: Buffer): Buffer[] {
  const part = secret.subarray(0, 15);
  const texts = [part.toString("hex"), part.toString("hex").toUpperCase(), part.toString("base64")];
  return [part, ...[...texts, part.toString("base64url"), [...part].join(",")].map((text) => Buffer.from(text))];
}

function leaksIn(content: Buffer | string, secrets: ReadonlyMap<string, readonly Buffer[]>): string[] {
  const bytes = Buffer.from(content);
  return [...secrets].filter(([, forms]) => forms.some((form) => bytes.includes(form))).map(([name]) => name);
}

function filesBelow(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

it("nothing that was printed, asked for or written holds a secret, but the files that are made for it", async () => {
  const asked: string[] = [];
  const ask = async (...args: readonly string[]) => {
    const { code, stdout, stderr } = await lab.exec("a", LAUNCHER, ["--control", lab.node("a").control, ...args]);
    expect([args, code, stderr]).toEqual([args, 0, expect.any(String)]);
    asked.push(stdout, stderr);
  };
  const tokens = ["--admin-token-file", inLab("admin.token"), "--token-file", inLab("join.token")];
  await ask("network", "create", "ops", "--rule", "token", ...tokens);
  const backup = ["id", "backup", inLab("a.backup"), "--passphrase-file", inLab("passphrase")];
  await ask(...backup, "--state", lab.node("a").stateDir);
  const pinged = await lab.exec("a", "ping", ["-6", "-c", "3", "-i", "0.2", lab.overlay("b")]);
  expect(pinged.stdout).toContain("3 received");
  await ask("status", "--json");
  await ask("peers", "--json");
  await ask("show", "dump");
  await ask("bugreport");
  await ask("bugreport", "--redact");
  await ask("metrics");
  await ask("config", "show", "--json");
  await ask("id", "show", "--state", lab.node("a").stateDir);
  await ask("audit", "export", "--dir", join(lab.node("a").stateDir, "audit"));

  const secrets = secretsOf(lab.node("a").stateDir, lab.node("b").stateDir);
  for (const text of asked) expect(leaksIn(text, secrets)).toEqual([]);
  for (const process of [lab.rendezvous, lab.node("a").process, lab.node("b").process]) {
    expect([process.title, leaksIn(process.stdout + process.stderr, secrets)]).toEqual([process.title, []]);
    for (const name of ["cmdline", "environ"]) {
      const text = readFileSync(`/proc/${process.pid}/${name}`);
      expect([text.length > 0, leaksIn(text, secrets)]).toEqual([true, []]);
    }
  }

  const holders = filesBelow(lab.folder).filter((file) => leaksIn(readFileSync(file), secrets).length > 0);
  const kept = ["a-state/identity.json", "admin.token", "b-state/identity.json", "join.token", "passphrase"];
  expect(holders.map((file) => file.slice(lab.folder.length + 1)).sort()).toEqual(kept);
  for (const file of [...holders, inLab("a.backup")]) {
    expect([file, statSync(file).mode & 0o777]).toEqual([file, 0o600]);
  }
}, 60_000);

describe("the memory of a daemon", () => {
  /** What the kernel gives to another program of the same user. */
  const readable = async (pid: number) =>
    (await lab.exec("b", inLab("as-nobody"), ["cat", `/proc/${pid}/environ`])).code === 0;

  it("is closed to other programs of its user, who can read that of an ordinary program", async () => {
    const ordinary = lab.spawn("b", inLab("as-nobody"), ["sh", "-c", "echo started; exec sleep 20"]);
    await ordinary.waitForLine(/started/);
    expect(await readable(ordinary.pid!)).toBe(true);
    expect(await readable(lab.node("b").process.pid!)).toBe(false);
    await ordinary.stop();
  });

  it("is in no core file of it", () => {
    for (const process of [lab.rendezvous, lab.node("a").process, lab.node("b").process]) {
      expect(readFileSync(`/proc/${process.pid}/limits`, "utf8")).toMatch(/^Max core file size\s+0\s+0\s/m);
    }
  });

  it("is not written when it crashes, where an ordinary program's is", async () => {
    const script = `import os
child = os.fork()
if child == 0: os.execv("${inLab("as-nobody")}", ["x", "sh", "-c", "kill -ABRT $$"])
print("core" if os.WCOREDUMP(os.waitpid(child, 0)[1]) else "none")`;
    expect((await lab.exec("b", "python3", ["-c", script])).stdout.trim()).toBe("core");
    for (const file of filesBelow(cores)) rmSync(file); // the next may have the same name
    lab.node("b").process.kill("SIGABRT");
    expect(await lab.node("b").process.ended).toEqual({ code: null, signal: "SIGABRT" });
    expect(filesBelow(cores)).toEqual([]);
  });
});
