/** The Debian package: the same bytes each time, and in a bare Debian what an operator does with it. */
import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, waitUntil } from "../helpers/lab.ts";
import { commandsOf, type DocumentedCommand } from "../helpers/quick-start.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

let folder: string;
let debian: string;
let lab: Lab;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "package-"));
  debian = join(folder, "debian");
  lab = await Lab.create("package", { hosts: ["a", ...SERVERS] });
  // From where apt of this machine takes the release that this machine runs.
  const [mirror, release] = execute("apt-get", ["indextargets", "--format", "$(SITE) $(RELEASE)"]).split(/\s/);
  const what = ["--variant=minbase", "--include=iproute2,procps,iputils-ping", release!, debian, mirror!];
  const installed = promisify(execFile)("debootstrap", what, { timeout: 400_000 });
  try {
    for (const name of ["one", "two"]) build(name);
  } finally {
    await installed;
  }
  for (const path of ["proc", "dev/net"]) mkdirSync(join(debian, path), { recursive: true });
  execute("mount", ["-t", "proc", "proc", join(debian, "proc")]);
  if (!existsSync(join(debian, "dev/net/tun")))
    execute("mknod", ["-m", "666", join(debian, "dev/net/tun"), "c", "10", "200"]);
}, 600_000);

afterAll(async () => {
  await lab?.close();
  if (existsSync(join(debian, "proc/self"))) execute("umount", [join(debian, "proc")]);
  rmSync(folder, { recursive: true, force: true });
});

function execute(program: string, words: readonly string[], timeout = 120_000): string {
  return execFileSync(program, words, { encoding: "utf8", timeout, stdio: ["ignore", "pipe", "pipe"] });
}

/** The package of this name's folder. */
function build(name: string, ...words: string[]): string {
  const out = join(folder, name);
  execute(join(ROOT, "scripts/package"), ["--out", out, ...words]);
  return join(out, readdirSync(out)[0]!);
}

function inside(...words: string[]): string {
  return execute("chroot", [debian, ...words]);
}

function dpkg(...words: string[]): string {
  return inside("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", ...words);
}

function install(path: string): void {
  execute("cp", [path, join(debian, "pilot-tun.deb")]);
  dpkg("-i", "/pilot-tun.deb");
}

/** The installed daemon, with the installed rendezvous, until it is ready; what it says of itself. */
async function runInstalled(): Promise<{ address: string }> {
  const rendezvous = lab.spawn(lab.rendezvousHost, "chroot", [debian, "pilot-tun", "rendezvous", ...RENDEZVOUS()]);
  await rendezvous.waitForLine(/^rendezvous ready/, 20_000);
  const where = ["--registry", lab.registry, "--beacon", lab.beacon];
  const daemon = lab.spawn("a", "chroot", [debian, "pilot-tun", "--json", "up", ...where]);
  const ready = JSON.parse(await daemon.waitForLine(/^\{/, 20_000, "stdout"));
  const { code } = await lab.exec("a", "ping", ["-6", "-c", "1", ready.address]);
  expect(code).toBe(0);
  await daemon.stop();
  await rendezvous.stop();
  return ready;
}

/** The two of docs/quick-start.md; each is a Debian of its own, nothing installed in it. */
const SERVERS = ["one", "two"];

function serverRoot(server: string): string {
  return join(folder, server === "one" ? "server-one" : "server-two");
}

/** A command as root of that server would type it, with this lab's addresses and this machine's architecture. */
function typed(server: string, { text, goesOn }: DocumentedCommand): [string, string[]] {
  const arch = execute("dpkg", ["--print-architecture"]).trim();
  const words = text.replaceAll("192.0.2.1", lab.network.addressOf("one")).replace("_amd64.deb", `_${arch}.deb`);
  const enter = 'mount -t proc proc "$1/proc" && hostname "$2" && exec chroot "$1" sh -c "cd /root && $3"';
  const root = serverRoot(server);
  return ["unshare", ["--uts", "--mount", "sh", "-c", enter, "sh", root, server, `${goesOn ? "exec " : ""}${words}`]];
}

async function followQuickStart(commands: readonly DocumentedCommand[]): Promise<string> {
  let output = "";
  for (const command of commands) {
    for (const server of command.prompt === "both" ? SERVERS : [command.prompt]) {
      const [program, words] = typed(server, command);
      if (command.goesOn) await lab.spawn(server, program, words).waitForLine(/ready/, 20_000);
      else
        await waitUntil(`${server}# ${command.text}`, async () => {
          const { code, stdout, stderr } = await lab.exec(server, program, words, { timeoutMs: 60_000 });
          output = stdout + stderr;
          return code === 0;
        }).catch((error: Error) => {
          throw new Error(`${error.message}\n${output}`);
        });
    }
  }
  return output;
}

const RENDEZVOUS = () => ["--registry", lab.registry, "--beacon", lab.beacon];

describe("the package", () => {
  it("has the same bytes when it is built again", () => {
    const [one, two] = ["one", "two"].map((name) => {
      const [file] = readdirSync(join(folder, name));
      return [file, execute("sha256sum", [join(folder, name, file!)]).split(" ")[0]];
    });
    expect(one).toEqual(two);
  });

  it("takes a newcomer from nothing to a ping between two servers, and back, by the quick start's own commands", async () => {
    const [name] = readdirSync(join(folder, "one"));
    for (const server of SERVERS) {
      execute("cp", ["-a", "--one-file-system", debian, serverRoot(server)]);
      mkdirSync(join(serverRoot(server), "proc"), { recursive: true });
      execute("cp", [join(folder, "one", name!), join(serverRoot(server), "root", name!)]);
      // What the package recommends, systemd, every server has already.
      writeFileSync(join(serverRoot(server), "etc/apt/apt.conf.d/bare"), 'APT::Install-Recommends "false";\n');
    }
    const commands = commandsOf("docs/quick-start.md");
    const ping = commands.findIndex(({ text }) => text.startsWith("ping6"));
    expect(ping).toBe(5);
    const shown = await followQuickStart(commands.slice(0, ping + 2));
    expect(shown).toMatch(/^one.* direct /m);
    await followQuickStart(commands.slice(ping + 2));
    for (const server of SERVERS) expect(existsSync(join(serverRoot(server), "var/lib/pilot-tun"))).toBe(false);
  }, 180_000);

  it("installs in a bare Debian without compiler, npm and node, and runs there", async () => {
    for (const absent of ["cc", "npm", "node"]) expect(() => inside("which", absent)).toThrow();
    install(join(folder, "one", readdirSync(join(folder, "one"))[0]!));
    expect(inside("pilot-tun", "version")).toMatch(/^pilot-tun \d/);
    expect(inside("getent", "group", "pilot-admin")).toMatch(/^pilot-admin:/);
    expect(inside("stat", "-c", "%a", "/usr/lib/pilot-tun/dist/native/pilot-tun-run")).toBe("755\n");
    expect(inside("stat", "-c", "%U:%G %a", "/etc/pilot-tun")).toBe("root:pilot-tun 775\n");
    await runInstalled();
    // Root started both, and they became the users that the package made.
    const owners = ["/var/lib/pilot-tun/identity.json", "/var/lib/pilot-rendezvous/rendezvous.db", "/run/pilot-tun"];
    expect(inside("stat", "-c", "%U", ...owners)).toBe("pilot-tun\npilot-rendezvous\npilot-tun\n");
  }, 120_000);

  it("keeps identity and address over an upgrade", async () => {
    const before = await runInstalled();
    install(build("later", "--version", "0.99.0"));
    expect(dpkg("-s", "pilot-tun")).toContain("Version: 0.99.0");
    expect((await runInstalled()).address).toBe(before.address);
  }, 120_000);

  it("brings units, manual, completions, licences and the example, which is good", () => {
    for (const path of [
      "usr/lib/systemd/system/pilot-tun@.service",
      "usr/share/polkit-1/rules.d/pilot-tun.rules",
      "usr/share/man/man8/pilot-tun.8.gz",
      "usr/share/doc/pilot-tun/README.md",
      "usr/share/doc/pilot-tun/docs/README.md",
      "usr/share/bash-completion/completions/pilot-tun",
      "usr/lib/pilot-tun/node_modules/ws/LICENSE",
      "usr/lib/pilot-tun/bin/LICENSE.node",
    ]) {
      expect([path, existsSync(join(debian, path))]).toEqual([path, true]);
    }
    inside("pilot-tun", "up", "--check", "--config", "/usr/share/doc/pilot-tun/examples/config.toml");
  });

  it("leaves the state when it is removed, and nothing when it is purged", () => {
    dpkg("-r", "pilot-tun");
    expect(existsSync(join(debian, "usr/lib/pilot-tun"))).toBe(false);
    expect(existsSync(join(debian, "var/lib/pilot-tun/identity.json"))).toBe(true);
    dpkg("-P", "pilot-tun");
    for (const path of ["var/lib/pilot-tun", "var/lib/pilot-rendezvous", "etc/pilot-tun"]) {
      expect([path, existsSync(join(debian, path))]).toEqual([path, false]);
    }
    expect(() => inside("getent", "passwd", "pilot-tun")).toThrow();
  });
});
