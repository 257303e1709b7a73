/** Backup and restore of a node's identity: the format by another implementation, and what a restore never does. */
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gcm } from "@noble/ciphers/aes.js";
import { scrypt } from "@noble/hashes/scrypt.js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { run } from "../../src/cli/program.ts";
import { backupIdentity, restoreIdentity } from "../../src/daemon/identity-backup.ts";
import { lockState } from "../../src/daemon/state-lock.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { openSealedText, sealText } from "../../src/io/sealed-text.ts";
import { StateDirectory } from "../../src/io/state-directory.ts";
import { CapturedProcess, temporaryDirectory } from "../helpers/control-fixture.ts";

const PASSPHRASE = "correct horse battery staple";
const NODE = { version: 1, node: 7, hostname: "two", port: 4000, endpoints: [], names: [] };
const LAUNCHER = fileURLToPath(new URL("../../scripts/pilot-tun", import.meta.url));

let directory: { path: string; remove(): void };
let old: string;
let fresh: string;
let file: string;
let publicKey: string;

beforeEach(() => {
  directory = temporaryDirectory();
  [old, fresh, file] = ["old", "fresh", "two.backup"].map((name) => join(directory.path, name)) as [
    string,
    string,
    string,
  ];
  publicKey = makeNode(old);
});

afterEach(() => directory.remove());

/** A state folder with an identity; its public key. */
function makeNode(path: string): string {
  const state = new StateDirectory(path);
  state.loadIdentity(new NodeCrypto());
  state.save("node.json", NODE);
  state.save("trust.json", { version: 1, epoch: 3, records: [] });
  return keyIn(path);
}

function keyIn(path: string): string {
  return JSON.parse(readFileSync(join(path, "identity.json"), "utf8")).public_key;
}

const backup = () => backupIdentity(old, file, PASSPHRASE, 32_768);
const restore = (isForced = false, into = fresh) => restoreIdentity(into, file, PASSPHRASE, isForced);
const code = (attempt: Promise<unknown>) => attempt.then(() => "done").catch((error) => error.code ?? String(error));

describe("a backup", () => {
  it("opens by the words of its format, with other people's code", async () => {
    await backupIdentity(old, file, PASSPHRASE);
    const [line, body] = readFileSync(file, "utf8").split("\n") as [string, string];
    const { format, kdf, n, r, p, salt, cipher, nonce } = JSON.parse(line);
    expect([format, kdf, n, cipher]).toEqual(["pilot-tun-sealed/1", "scrypt", 131_072, "aes-256-gcm"]);
    const bytes = (text: string) => Uint8Array.from(Buffer.from(text, "base64"));
    const key = scrypt(Buffer.from(PASSPHRASE), bytes(salt), { N: n, r, p, dkLen: 32 });
    const text = Buffer.from(gcm(key, bytes(nonce), Buffer.from(line)).decrypt(bytes(body))).toString();
    const { version, made, files } = JSON.parse(text);
    expect(version).toBe(1);
    expect(Date.parse(made)).toBeGreaterThan(0);
    expect(files["identity.json"]).toEqual(JSON.parse(readFileSync(join(old, "identity.json"), "utf8")));
    expect(files["node.json"]).toEqual(NODE);
  });

  it("is for its owner alone, shows nothing of what it holds, and is another one each time", async () => {
    const facts = await backup();
    expect(facts).toMatchObject({ publicKey, node: 7, files: ["identity.json", "trust.json", "node.json"] });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const first = readFileSync(file, "utf8");
    expect(first).not.toContain(publicKey.slice(0, 20));
    await backup();
    expect(readFileSync(file, "utf8").split("\n")[1]).not.toBe(first.split("\n")[1]);
    expect(readdirSync(directory.path).sort()).toEqual(["old", "two.backup"]);
  });

  it("is refused without an identity, between two keys, and of files that cannot be read; nothing is moved", async () => {
    expect(await code(backupIdentity(fresh, file, PASSPHRASE))).toBe("no_identity");
    expect(existsSync(fresh)).toBe(false);
    writeFileSync(join(old, "trust.json"), "{");
    expect(await code(backup())).toBe("backup_failed");
    expect(readFileSync(join(old, "trust.json"), "utf8")).toBe("{");
    new StateDirectory(old).prepareIdentity(new NodeCrypto());
    expect(await code(backup())).toBe("rotation_unsettled");
    expect(existsSync(file)).toBe(false);
  });

  it("does not open after any of its bytes was changed, nor with another passphrase, nor when it costs too much", async () => {
    const sealed = await sealText("text", PASSPHRASE, 32_768);
    expect(await openSealedText(sealed, PASSPHRASE)).toBe("text");
    const [line, body] = sealed.split("\n") as [string, string];
    const edited = (edit: object): string => `${JSON.stringify({ ...JSON.parse(line), ...edit })}\n${body}\n`;
    const wrong = [
      sealed.replace('"p":1', '"p":2'),
      edited({ more: 1 }),
      edited({ nonce: Buffer.alloc(12).toString("base64") }),
      `${line}\n${body.startsWith("A") ? "B" : "A"}${body.slice(1)}\n`,
    ];
    for (const text of wrong) expect(await code(openSealedText(text, PASSPHRASE))).toBe("passphrase_wrong");
    expect(await code(openSealedText(sealed, `${PASSPHRASE} `))).toBe("passphrase_wrong");
    const damaged = [
      "",
      "x",
      "{}",
      "{}\nAAAA",
      line,
      `${line}\nA`,
      edited({ n: 2 ** 30 }),
      edited({ n: 16 }),
      edited({ r: 64 }),
      edited({ format: "pilot-tun-sealed/2" }),
      edited({ salt: "" }),
      "null\nAAAA",
    ];
    for (const text of damaged)
      expect([text, await code(openSealedText(text, PASSPHRASE))]).toEqual([text, "backup_damaged"]);
  });

  it("takes a passphrase however its accents are written", async () => {
    const sealed = await sealText("text", "caf\u00e9 caf\u00e9 caf\u00e9", 32_768);
    expect(await openSealedText(sealed, "cafe\u0301 cafe\u0301 cafe\u0301")).toBe("text");
  });
});

describe("a restore", () => {
  it("into an empty place brings everything back, byte for byte, for the same eyes alone", async () => {
    await backup();
    expect(await restore()).toMatchObject({ publicKey, node: 7, kept: [], putAside: [] });
    for (const name of ["identity.json", "trust.json", "node.json"]) {
      expect(readFileSync(join(fresh, name), "utf8")).toBe(readFileSync(join(old, name), "utf8"));
      expect(statSync(join(fresh, name)).mode & 0o777).toBe(0o600);
    }
  });

  it("over another identity is refused and changes nothing; by force that one is kept under another name", async () => {
    await backup();
    const other = makeNode(fresh);
    new StateDirectory(fresh).save("flows.json", { version: 1 });
    const before = readdirSync(fresh).map((name) => [name, readFileSync(join(fresh, name), "utf8")]);
    expect(await code(restore())).toBe("identity_differs");
    expect(readdirSync(fresh).map((name) => [name, readFileSync(join(fresh, name), "utf8")])).toEqual(before);
    const { putAside } = await restore(true);
    expect(keyIn(fresh)).toBe(publicKey);
    expect(putAside.map((path) => path.replace(/^.*\/|\.replaced-.*$/g, "")).sort()).toEqual([
      ...["flows.json", "identity.json", "node.json", "trust.json"],
    ]);
    const aside = putAside.find((path) => path.includes("identity.json"))!;
    expect(JSON.parse(readFileSync(aside, "utf8")).public_key).toBe(other);
  });

  it("over the same identity brings what is missing, and leaves newer trust alone", async () => {
    await backup();
    const newer = { version: 1, epoch: 9, records: [] };
    new StateDirectory(old).save("trust.json", newer);
    execFileSync("rm", [join(old, "node.json")]);
    expect(await restore(false, old)).toMatchObject({ restored: ["node.json"], kept: ["trust.json"] });
    expect(JSON.parse(readFileSync(join(old, "trust.json"), "utf8"))).toEqual(newer);
  });

  it("is refused while a daemon has the folder, and before anything is written when the backup is not sound", async () => {
    await backup();
    mkdirSync(fresh);
    lockState(fresh);
    expect(await code(restore())).toBe("state_locked");
    expect(existsSync(join(fresh, "identity.json"))).toBe(false);
    const elsewhere = join(directory.path, "elsewhere");
    const whole = JSON.parse(await openSealedText(readFileSync(file, "utf8"), PASSPHRASE));
    const unsound = [
      { ...whole, version: 2 },
      { ...whole, files: {} },
      { ...whole, files: { ...whole.files, "../x.json": {} } },
      { ...whole, files: { ...whole.files, "trust.json": { version: 99 } } },
      { ...whole, files: { ...whole.files, "node.json": null } },
      {
        ...whole,
        files: {
          ...whole.files,
          "identity.json": { ...whole.files["identity.json"], public_key: publicKey.replace(/^./, "_") },
        },
      },
    ];
    for (const bundle of unsound) {
      writeFileSync(file, await sealText(JSON.stringify(bundle), PASSPHRASE, 32_768));
      expect(await code(restore(true, elsewhere))).toBe("backup_damaged");
    }
    expect(existsSync(elsewhere)).toBe(false);
  });
});

describe("the commands", () => {
  it("back up with a passphrase from a file, restore with one that is typed, and say: one key, one host", async () => {
    const secret = join(directory.path, "secret");
    writeFileSync(secret, `${PASSPHRASE}\n`);
    chmodSync(secret, 0o600);
    const first = new CapturedProcess();
    expect(await run(["id", "backup", file, "--state", old, "--passphrase-file", secret], first)).toBe(0);
    expect(first.out).toContain(publicKey);
    const second = new CapturedProcess();
    second.secrets = [PASSPHRASE];
    expect(await run(["id", "restore", file, "--state", fresh], second)).toBe(0);
    expect(second.out).toMatch(/restored.*identity\.json, trust\.json, node\.json/);
    expect(second.out).toMatch(/one key, one host.*revoked after/s);
    expect(second.err).toBe("Passphrase of the backup: ");
  });

  it("refuse a short passphrase, two that differ, and to guess when nobody can be asked", async () => {
    for (const [secrets, message] of [
      [["short", "short"], "at least 12 characters"],
      [[PASSPHRASE, `${PASSPHRASE}x`], "differ"],
      [[], "--passphrase-file"],
    ] as const) {
      const captured = new CapturedProcess();
      captured.secrets = [...secrets];
      expect(await run(["id", "backup", file, "--state", old], captured)).toBe(2);
      expect(captured.err).toContain(message);
    }
    expect(existsSync(file)).toBe(false);
  });

  it("ask at a terminal, where the passphrase is not shown", () => {
    const typed = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
for asked in (b"backup: ", b"again: "):
    while asked not in seen:
        seen += os.read(fd, 1024)
    os.write(fd, b"${PASSPHRASE}\\r")
try:
    while True:
        seen += os.read(fd, 1024)
except OSError:
    pass
os.write(1, seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`;
    const words = ["-c", typed, LAUNCHER, "id", "backup", file, "--state", old];
    const seen = execFileSync("python3", words, { encoding: "utf8", timeout: 30_000 });
    expect(seen).toContain(publicKey);
    expect(seen).not.toContain("horse");
    expect(existsSync(file)).toBe(true);
  });
});
