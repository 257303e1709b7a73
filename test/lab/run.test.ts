/** `pilot-tun run`: programs with nothing but the overlay, and everything that must be out of their reach. */
import { chmodSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ExecOptions, type ExecResult, LAUNCHER, Lab, waitUntil } from "../helpers/lab.ts";
import type { LabProcess, SpawnOptions } from "../helpers/lab-process.ts";

/** Numbers that no host uses. */
const ANN = 71_001;
const BEN = 71_002;
const ADMINS = 71_010;

let lab: Lab;

/** This machine need not have the daemon's groups: where a node asks for them, it is told of one. */
const GETENT = `#!/bin/sh
[ "$*" = "group pilot-admin" ] && echo "pilot-admin:x:${ADMINS}:" && exit
exec /usr/bin/getent "$@"
`;

beforeAll(async () => {
  lab = await Lab.create("run", { hosts: ["a", "b"] });
  chmodSync(lab.folder, 0o755);
  writeFileSync(`${lab.folder}/getent`, GETENT, { mode: 0o755 });
  await lab.startRendezvous();
  await startNode();
  await lab.startNode("b");
  await lab.trust("a", "b");
  for (const [host, where, port] of SERVERS) await serve(host, where, port);
  await lab.spawn("b", "python3", ["-u", "-c", ECHO, "7005"]).waitForLine(/listening/);
  await waitUntil("a to know b's name", async () => (await inside(["getent", "ahosts", "b.pilot"])).code === 0);
}, 60_000);

afterAll(() => lab?.close());

async function startNode(): Promise<void> {
  const policy = `${lab.folder}/policy`;
  writeFileSync(policy, POLICY, { mode: 0o600 });
  const env = { PATH: `${lab.folder}:${process.env.PATH}` };
  await lab.startNode("a", { env, extraArgs: ["--policy", policy] });
}

/** Ann may speak to the port that nobody else here may. */
const POLICY = `
allow in any from trusted
allow out tcp 7006 to trusted by user:${ANN}
deny out tcp 7006 to trusted
allow out any to trusted
`;

/** What a guest of `a` must reach, and what it must not. */
const SERVERS = [
  ["b", "::", 7001],
  ["b", "::", 7006],
  ["a", "::", 7002],
  ["a", "0.0.0.0", 7003],
  ["net", "0.0.0.0", 7004],
] as const;

async function serve(host: string, where: string, port: number): Promise<void> {
  await lab.spawn(host, "python3", ["-u", "-c", SERVE, where, String(port)]).waitForLine(/listening/);
}

const words = (...command: readonly string[]): string[] => ["--control", lab.node("a").control, ...command];

/** A program that `pilot-tun run` runs on `a`. */
function inside(command: readonly string[], options: ExecOptions = {}, ...how: string[]): Promise<ExecResult> {
  return lab.exec("a", LAUNCHER, words("run", ...how, "--", ...command), options);
}

function spawnInside(command: readonly string[], options: SpawnOptions = {}): LabProcess {
  return lab.spawn("a", LAUNCHER, words("run", "--", ...command), options);
}

/** As somebody else on `a`, with these further groups. */
function as(uid: number, groups: readonly number[], command: readonly string[]): Promise<ExecResult> {
  const groupWords = groups.length === 0 ? ["--clear-groups"] : [`--groups=${groups.join(",")}`];
  return lab.exec("a", "setpriv", [`--reuid=${uid}`, `--regid=${uid}`, ...groupWords, ...command]);
}

/** What became of TCP connections from inside, each to an address and a port: what was heard, or the error. */
async function dialEach(...ends: readonly (readonly [string, number])[]): Promise<string[]> {
  const { stdout } = await inside(["python3", "-c", DIAL, ...ends.flat().map(String)]);
  return stdout.trim().split("\n");
}

const dial = async (address: string, port: number): Promise<string> => (await dialEach([address, port]))[0]!;

const SERVE = `
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
tcp = socket.socket(family)
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind((address, port)); tcp.listen(16)
print("listening")
while True:
    one, who = tcp.accept()
    one.sendall(b"hello %s %d" % (who[0].encode(), who[1])); one.close()
`;
const DIAL = `
import errno, socket, sys
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    one.settimeout(3)
    try:
        one.connect((address, int(port)))
        print(one.recv(100).decode())
    except socket.timeout: print("timeout")
    except OSError as e: print(errno.errorcode[e.errno])
`;

describe("a program that pilot-tun run starts", () => {
  it("reaches a trusted peer by ping, TCP, UDP and name, from this node's address and from a port of its own", async () => {
    const b = lab.overlay("b");
    expect((await inside(["ping", "-6", "-c", "2", "-i", "0.2", "-W", "3", b])).code).toBe(0);
    const [word, address, port] = (await dial(b, 7001)).split(" ");
    expect([word, address]).toEqual(["hello", lab.overlay("a")]);
    expect(Number(port)).toBeGreaterThanOrEqual(49_152);
    const named = await inside(["getent", "ahostsv6", "b.pilot"]);
    expect(named.stdout, `${named.code} ${named.stderr}`).toContain(b);
    // Nobody has the port: b's kernel says so, and its word comes back.
    expect((await inside(["python3", "-c", UDP, b, "7999"])).stdout.trim()).toBe("ECONNREFUSED");
    // 20 MB there and back, in superpackets.
    const bulk = await inside(["python3", "-c", BULK, b, "7005"], { timeoutMs: 30_000 });
    expect(bulk.stdout.trim(), bulk.stderr).toBe("20000000");
  });

  it("can be reached by peers on the ports that are its own", async () => {
    const server = spawnInside(["python3", "-u", "-c", SERVE_OWN]);
    const port = (await server.waitForLine(/listening \d+/)).split(" ")[1]!;
    const { stdout } = await lab.exec("b", "python3", ["-c", DIAL, lab.overlay("a"), port]);
    expect(stdout.trim()).toMatch(/^hello /);
    await server.stop();
  });

  it("reaches nothing else: no service of the host, no network of it, no name that is not a peer's", async () => {
    const [own, underlay] = [lab.overlay("a"), lab.network.addressOf("a")];
    const host = await dialEach(["::1", 7002], ["127.0.0.1", 7003], [own, 7002], [SERVICE, 7002]);
    expect(host).toEqual(["ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED", "EACCES"]);
    const far = await dialEach([underlay, 7003], [lab.network.addressOf("net"), 7004], ["2001:db8::1", 80]);
    expect(far).toEqual(["ENETUNREACH", "ENETUNREACH", "ENETUNREACH"]);
    // The servers are there, and the host reaches them.
    const there = [underlay, "7003", "::1", "7002", own, "7002", SERVICE, "7002", lab.network.addressOf("net"), "7004"];
    const { stdout } = await lab.exec("a", "python3", ["-c", DIAL, ...there]);
    expect(stdout.match(/^hello/gm)).toHaveLength(5);
    const started = performance.now();
    expect((await inside(["getent", "ahosts", "example.org"])).code).not.toBe(0);
    expect(performance.now() - started).toBeLessThan(4_000);
  });

  it("cannot help itself: it has no privileges, gets none, and what it would do with them leads nowhere", async () => {
    const { stdout } = await inside(["sh", "-c", TRY_TO_ESCAPE]);
    const [interfaces, ...rest] = stdout.trim().split("\n");
    expect(interfaces).toBe("lo pilot0");
    expect(rest).toEqual([
      "CapEff 0000000000000000",
      "CapBnd 0000000000000000",
      "NoNewPrivs 1",
      "route refused",
      "device refused",
      "vsock EAFNOSUPPORT",
      "processes few",
      "sockets of services 0",
    ]);
  });

  it("is told at once when trust is revoked, and trust given again lets it go on", async () => {
    const client = spawnInside(["python3", "-u", "-c", LISTEN, lab.overlay("b"), "7005"]);
    await client.waitForLine(/open/);
    await lab.pilot("a", "trust", "revoke", "b");
    expect(await client.waitForLine(/ended/, 5_000)).toBe("ended ECONNRESET");
    expect(await dial(lab.overlay("b"), 7001)).toBe("EACCES");
    expect((await inside(["python3", "-c", UDP, lab.overlay("b"), "7999"])).stdout.trim()).toBe("EACCES");
    await lab.trust("a", "b");
    expect(await dial(lab.overlay("b"), 7001)).toMatch(/^hello/);
  });

  it("has no network while the daemon does not run, is told so, and has it again afterwards on the same ports", async () => {
    const client = spawnInside(["python3", "-u", "-c", DIAL_AGAIN, lab.overlay("b"), "7001"]);
    await client.waitForLine(/^hello/);
    await lab.stopNode("a", "SIGKILL");
    await client.waitForLine(/^ENETUNREACH/);
    await startNode();
    const seen = client.stdout.length;
    await waitUntil("the program to be heard again", () => /hello/.test(client.stdout.slice(seen)));
    await client.stop();
  });
});

describe("how it is started and ended", () => {
  it("hands on exit code, signals, standard input and output, and the name of the machine", async () => {
    expect((await inside(["sh", "-c", "exit 7"])).code).toBe(7);
    expect((await inside(["sh", "-c", "kill -KILL $$"])).code).toBe(137);
    expect((await inside(["/nonexistent"])).code).toBe(127);
    expect((await inside(["/etc/passwd"])).code).toBe(126);
    const { stdout } = await inside(["sh", "-c", "cat; hostname"], { input: "through\n" }, "--hostname", "agent-7");
    expect(stdout).toBe("through\nagent-7\n");
    const blocking = "import os; print([os.get_blocking(fd) for fd in (0, 1, 2)])";
    expect((await inside(["python3", "-c", blocking])).stdout).toBe("[True, True, True]\n");
    const program = spawnInside(["python3", "-u", "-c", ON_SIGNAL]);
    await program.waitForLine(/ready/);
    for (const signal of ["SIGUSR1", "SIGWINCH", "SIGHUP", "SIGTERM"] as const) {
      process.kill(program.pid!, signal);
      await program.waitForLine(new RegExp(signal));
    }
    expect((await program.ended).code).toBe(5);
  });

  it("leaves the terminal's Ctrl-C to the program, which gets it once", async () => {
    const command = [LAUNCHER, ...words("run", "--", "python3", "-u", "-c", COUNT_INTERRUPTS)];
    const { stdout } = await lab.exec("a", "python3", ["-c", ON_TERMINAL, ...command]);
    expect(stdout).toContain("interrupts: 1");
    expect(stdout).toContain("exit code 3");
  });

  it("leaves nothing behind, whichever part is killed", async () => {
    const start = async (mark: string): Promise<LabProcess> => {
      const program = spawnInside(["sh", "-c", `setsid sleep ${mark} & sleep ${mark} & echo on; wait`]);
      await program.waitForLine(/^on/);
      await waitUntil("both to run", () => running("sleep", mark).length === 2);
      return program;
    };
    const own = await start("7001.1"); // the program itself
    process.kill(running("sh", "7001.1").at(-1)!, "SIGKILL");
    expect((await own.ended).code).toBe(137);
    const cli = await start("7002.2"); // what the caller started
    process.kill(cli.pid!, "SIGKILL");
    await cli.ended;
    const keeper = await start("7003.3"); // what carries its packets
    process.kill(childrenOf(keeper.pid!)[0]!, "SIGKILL");
    expect((await keeper.ended).code).toBe(137);
    await waitUntil("all of them to be gone", () => MARKS.every((mark) => running("sleep", mark).length === 0));
  });

  it("is for members of pilot-admin too, without privileges, and their rules hold for what they start", async () => {
    const ann = await as(ANN, [ADMINS], [LAUNCHER, ...words("run", "--", "sh", "-c", TELL, lab.overlay("b"))]);
    expect(ann.stdout.trim().split("\n"), ann.stderr).toEqual([String(ANN), "hello", "yes"]);
    const ben = await as(BEN, [], [LAUNCHER, "--json", ...words("run", "--", "true")]);
    expect(ben.code).toBe(9);
    expect(JSON.parse(ben.stdout).error.code).toBe("not_permitted");
    expect(await dial(lab.overlay("b"), 7006)).toBe("EACCES");
  });

  it("lets root start it as somebody else, and nobody but root", async () => {
    const { stdout, stderr } = await inside(["sh", "-c", TELL, lab.overlay("b")], {}, "--user", "nobody");
    expect(stdout.trim().split("\n"), stderr).toEqual(["65534", "EACCES", "yes"]);
    const ann = await as(ANN, [ADMINS], [LAUNCHER, "--json", ...words("run", "--user", "nobody", "--", "true")]);
    expect(JSON.parse(ann.stdout).error.code).toBe("not_privileged");
    const none = await lab.tryPilot("a", "run", "--user", "no-such-user", "--", "true");
    expect(none.reply.error.code).toBe("unknown_user");
  });

  it("says what is missing on this machine, and starts nothing", async () => {
    const hidden = 'mount -t tmpfs none /dev/net && exec "$@"';
    const command = [LAUNCHER, "--json", ...words("run", "--", "echo", "started")];
    const { code, stdout } = await lab.exec("a", "unshare", ["-m", "sh", "-c", hidden, "sh", ...command]);
    expect(code).toBe(9);
    expect(stdout).not.toContain("started");
    const { error } = JSON.parse(stdout);
    expect(error.code).toBe("run_unavailable");
    expect(error.hint).toContain("modprobe tun");
  });
});

const MARKS = ["7001.1", "7002.2", "7003.3"];

/** Processes of this machine with this program's name, and this word among the arguments. */
function running(program: string, word: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      const [first, ...rest] = readOrEmpty(`/proc/${pid}/cmdline`).split("\0");
      return first === program && rest.some((argument) => argument.includes(word));
    })
    .map(Number);
}

function childrenOf(pid: number): number[] {
  return readOrEmpty(`/proc/${pid}/task/${pid}/children`).trim().split(" ").filter(Boolean).map(Number);
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it ended meanwhile
  }
}

const ON_SIGNAL = `
import signal, sys
def heard(number, frame):
    print(signal.Signals(number).name)
    if number == signal.SIGTERM: sys.exit(5)
for one in (signal.SIGUSR1, signal.SIGWINCH, signal.SIGHUP, signal.SIGTERM): signal.signal(one, heard)
print("ready")
while True: signal.pause()
`;
const COUNT_INTERRUPTS = `
import signal, time
count = 0
def heard(number, frame):
    global count
    count += 1
signal.signal(signal.SIGINT, heard)
print("ready")
while count == 0: time.sleep(0.05)
time.sleep(0.5)
print("interrupts:", count)
raise SystemExit(3)
`;
const ON_TERMINAL = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
text = b""
try:
    while part := os.read(terminal, 1000):
        if b"ready" not in text and b"ready" in text + part: os.write(terminal, b"\\x03")
        text += part
except OSError: pass
print(text.decode())
print("exit code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;
/** Who it is, what became of a connection to b's port 7006, and whether it owns what is in its home under /run. */
const TELL = `
id -u
python3 - "$0" <<'END'
import errno, socket, sys
try: print(socket.create_connection((sys.argv[1], 7006), 5).recv(5).decode())
except OSError as e: print(errno.errorcode[e.errno])
END
test -O /run/user/$(id -u) && echo yes
`;
const ECHO = `
import socket, sys, threading
def echo(one):
    while part := one.recv(1 << 20): one.sendall(part)
    one.close()
tcp = socket.socket(socket.AF_INET6)
tcp.bind(("::", int(sys.argv[1]))); tcp.listen(4)
print("listening")
while True: threading.Thread(target=echo, args=(tcp.accept()[0],), daemon=True).start()
`;
const SERVICE = "fd50:494c:4f54:ffff::53";
const UDP = `
import errno, socket, sys
one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
one.settimeout(3)
try:
    one.connect((sys.argv[1], int(sys.argv[2])))
    one.send(b"x"); one.recv(1); print("answer")
except socket.timeout: print("timeout")
except OSError as e: print(errno.errorcode[e.errno])
`;
const BULK = `
import socket, sys, threading
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
block = bytes(100000)
def send():
    for _ in range(200): one.sendall(block)
    one.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
heard = 0
while part := one.recv(1 << 20): heard += len(part)
print(heard)
`;
const SERVE_OWN = `
import os, socket
port = int(os.environ["PILOT_RUN_PORTS"].split("-")[0])
tcp = socket.socket(socket.AF_INET6)
tcp.bind(("::", port)); tcp.listen(4)
print("listening", port)
one, who = tcp.accept(); one.sendall(b"hello peer"); one.close()
import time; time.sleep(30)
`;
const LISTEN = `
import errno, socket, sys
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
one.settimeout(20); print("open")
try: one.recv(1); print("ended")
except OSError as e: print("ended", errno.errorcode.get(e.errno, "timeout"))
`;
const DIAL_AGAIN = `
import errno, socket, sys, time
for _ in range(200):
    one = socket.socket(socket.AF_INET6); one.settimeout(1)
    try: one.connect((sys.argv[1], int(sys.argv[2]))); print(one.recv(100).decode())
    except OSError as e: print(errno.errorcode.get(e.errno, "timeout"))
    one.close(); time.sleep(0.1)
`;
const TRY_TO_ESCAPE = `
echo $(ls /sys/class/net >/dev/null; tail -n +3 /proc/net/dev | cut -d: -f1 | sort)
awk '/^(CapEff|CapBnd|NoNewPrivs)/ { sub(":", "", $1); print $1, $2 }' /proc/self/status
ip -6 route add default dev pilot0 2>/dev/null && echo route added || echo route refused
ip link set pilot0 down 2>/dev/null && echo device down || echo device refused
python3 -c 'import errno, socket
try: socket.socket(socket.AF_VSOCK); print("vsock opened")
except OSError as e: print("vsock", errno.errorcode[e.errno])'
[ $(ls -d /proc/[0-9]* | wc -l) -lt 10 ] && echo processes few || echo processes many
echo sockets of services $(find /run -type s | wc -l)
`;
