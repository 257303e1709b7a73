/**
 * `pilot-tun run`: a program with nothing of the network but the overlay. Asks the daemon for ports, makes sure that this
 * machine lets the caller have what is needed, and becomes the launcher (native-shims/launcher), which becomes the program's
 * parent: signals, terminal and exit code are as if the program had been started alone. See docs/run.md.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { PilotError } from "../base/pilot-error.ts";
import { EXIT, type ExitCode } from "../control/api.ts";
import { RUN_PROTOCOL, type RunReply } from "../control/run-api.ts";
import { type Account, findAccount } from "../host/account.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { UsageError, usageProblem } from "./refusal.ts";
import type { Variables } from "./settings.ts";

export const declareRun: Declare = (program, perform) => {
  program
    .command("run")
    .description("start a program that can reach trusted peers and nothing else")
    .argument("<COMMAND...>", "the program and its arguments, after --")
    .option("--hostname <NAME>", "what the machine is called for the program")
    .option("--user <USER>", "run it as somebody else, by name or number (root only)")
    .addHelpText(
      "after",
      `
The program has no other interface, finds names under .pilot and no others, and cannot get privileges.
Its exit code is that of this command: 128 + N after signal N, 127 when there is no such program.
PILOT_RUN_PORTS says on which ports it may listen for peers.
${examples("pilot-tun run -- curl http://bob.pilot/", "pilot-tun run --hostname agent -- ./agent --port 65000")}`,
    )
    .action(perform(run));
};

async function run(context: Context, input: Input): Promise<ExitCode> {
  const { hostname } = input.options;
  if (typeof hostname === "string" && !HOSTNAME.test(hostname)) {
    const hint = "Use 1 to 64 letters, digits, dots and hyphens.";
    throw new UsageError([usageProblem(`${JSON.stringify(hostname)} is no name for a machine`, hint)]);
  }
  const account = input.options.user === undefined ? undefined : findAccount(String(input.options.user));
  if (account !== undefined && process.geteuid?.() !== 0) throw notRoot(account);
  const launcher = findLauncher();
  const reply = await context.call("run", account === undefined ? {} : { uid: account.uid });
  const options = launcherOptions(context, reply, account, hostname as string | undefined);
  checkMachine(launcher, options);
  const variables = { ...context.environment.variables, ...variablesOf(reply, account) };
  context.environment.become(launcher, [launcher, ...options, "--", ...input.args], variables);
  return EXIT.failed; // not reached
}

/** What the launcher is told; see native-shims/launcher/launcher.h. */
function launcherOptions(context: Context, reply: RunReply, account: Account | undefined, hostname?: string): string[] {
  const { first, last } = reply.ports;
  const query = account === undefined ? `first=${first}` : `first=${first}&uid=${account.uid}`;
  const head = [`GET /v1/run?${query} HTTP/1.1`, "host: pilot", "connection: upgrade", `upgrade: ${RUN_PROTOCOL}`];
  const options = [
    ...["--control", context.options.control, "--request", `${head.join("\r\n")}\r\n\r\n`],
    ...["--interface", reply.interface, "--prefix", reply.prefix, "--mtu", String(reply.mtu)],
    ...["--ports", `${first} ${last}`, "--names", namesText(reply)],
    ...reply.addresses.flatMap((address) => ["--address", address]),
  ];
  if (hostname !== undefined) options.push("--hostname", hostname);
  if (account !== undefined) options.push("--identity", `${account.uid}:${account.gid}:${account.groups.join(",")}`);
  return options;
}

/** Without a server the C library asks this machine itself, where nobody listens: no name is found, at once. */
function namesText({ dns }: RunReply): string {
  return dns === null ? "# No names are answered here.\n" : `nameserver ${dns}\noptions timeout:2 attempts:2\n`;
}

function variablesOf({ ports, addresses }: RunReply, account: Account | undefined): Variables {
  const own = { PILOT_RUN_PORTS: `${ports.first}-${ports.last}`, PILOT_RUN_ADDRESS: addresses[0]! };
  if (account === undefined) return own;
  return { ...own, HOME: account.home, SHELL: account.shell, USER: account.name, LOGNAME: account.name };
}

/** Everything but the program itself, made and thrown away: here a failure can still be told with code and advice. */
function checkMachine(launcher: string, options: readonly string[]): void {
  const { status, stderr, error } = spawnSync(launcher, [...options, "--check"], {
    encoding: "utf8",
    timeout: CHECK_PATIENCE_MS,
    stdio: ["ignore", "ignore", "pipe"],
  });
  if (status === 0) return;
  const [, step = "launcher", reason = error?.message ?? "it ended early"] =
    /^pilot-tun run: (.*?): (.*)$/m.exec(stderr ?? "") ?? [];
  throw new PilotError(
    "run_unavailable",
    `This machine does not let user ${process.geteuid?.()} have what the program would run in (${step}: ${reason})`,
    HINTS[step] ?? "Run it as root. docs/run.md says what is needed.",
  );
}

/** By the launcher's step. */
const HINTS: Readonly<Record<string, string>> = {
  namespaces:
    "Run it as root, or let users make namespaces: sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1.",
  "users of the user namespace": "Run it as root: something on this machine (AppArmor?) restricts user namespaces.",
  "/dev/net/tun": "Load the module with 'modprobe tun', and let everybody open it: chmod 0666 /dev/net/tun.",
  interface: "Run it as root: something on this machine (AppArmor?) restricts user namespaces.",
  "/proc": "Run it as root: a container that hides parts of /proc lets nobody else have a view of it.",
};

/** Beside the compiled program, or in the build folder when the sources themselves are run. */
function findLauncher(): string {
  const paths = ["../native/pilot-tun-run", "../../dist/native/pilot-tun-run"];
  const found = paths.map((path) => fileURLToPath(new URL(path, import.meta.url))).find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new PilotError(
    "shim_missing",
    "The launcher pilot-tun-run is missing",
    "Build it with ./scripts/build-native.",
  );
}

function notRoot({ name }: Account): PilotError {
  return new PilotError(
    "not_privileged",
    `Only root may run a program as ${name}`,
    "Run it with sudo, or without --user as yourself.",
  );
}

const HOSTNAME = /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$/;
const CHECK_PATIENCE_MS = 10_000;
