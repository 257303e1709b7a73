/**
 * `pilot-tun doctor`: looks at this host and at the daemon for what commonly goes wrong, and names for each finding the
 * command that mends it. Nothing is changed.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { PilotError } from "../base/pilot-error.ts";
import { EXIT, type ExitCode, type Problem, SCHEMA, type StatusReply } from "../control/api.ts";
import { runCommand } from "../host/command.ts";
import { type Context, type Declare, examples, type Input } from "./context.ts";
import { printable } from "./format.ts";
import { UsageError, usageProblem } from "./refusal.ts";

export const declareDoctor: Declare = (program, perform) => {
  program
    .command("doctor")
    .description("what is wrong on this host, and the command that mends it; 1 is the exit code when something is")
    .argument("[TOPIC]", Object.keys(TOPICS).join(", "))
    .addHelpText("after", examples("pilot-tun doctor", "pilot-tun doctor dns"))
    .action(perform(doctor));
};

/** One thing that was looked at. */
interface Finding {
  readonly topic: string;
  readonly ok: boolean;
  readonly text: string;
  /** What mends it; null when nothing is wrong. */
  readonly fix: string | null;
}

type Check = (status: StatusReply | undefined, control: string) => Promise<Finding[]> | Finding[];

const TOPICS: Readonly<Record<string, Check>> = {
  daemon: checkDaemon,
  tun: checkTun,
  ipv6: checkIpv6,
  network: checkNetwork,
  clock: checkClock,
  dns: checkDns,
  systemd: checkSystemd,
};

async function doctor(context: Context, { args }: Input): Promise<ExitCode> {
  const topic = args[0];
  if (topic !== undefined && !Object.hasOwn(TOPICS, topic)) {
    throw new UsageError([
      usageProblem(`There is no topic ${topic}`, `Write one of ${Object.keys(TOPICS).join(", ")}.`),
    ]);
  }
  const status = await statusOf(context);
  const findings: Finding[] = [];
  for (const [name, check] of Object.entries(TOPICS)) {
    if (topic === undefined || name === topic) findings.push(...(await check(status, context.options.control)));
  }
  const wrong = findings.filter(({ ok }) => !ok);
  context.answer({ schema: SCHEMA, ok: wrong.length === 0, findings }, () =>
    findings.flatMap((finding) => lines(finding, context)),
  );
  return wrong.length === 0 ? EXIT.ok : EXIT.failed;
}

function lines({ topic, ok, text, fix }: Finding, { paint }: Context): string[] {
  const mark = ok ? "ok " : paint("yellow", "!! ");
  return [
    `${mark} ${topic.padEnd(8)} ${printable(text)}`,
    ...(fix === null ? [] : [`             fix: ${printable(fix)}`]),
  ];
}

async function statusOf(context: Context): Promise<StatusReply | undefined> {
  try {
    return await context.call("status", {});
  } catch (error) {
    if (error instanceof PilotError && error.code !== "not_permitted") return undefined;
    throw error;
  }
}

const good = (topic: string, text: string): Finding => ({ topic, ok: true, text, fix: null });
const bad = (topic: string, text: string, fix: string): Finding => ({ topic, ok: false, text, fix });

function checkDaemon(status: StatusReply | undefined, control: string): Finding[] {
  if (status === undefined) {
    return [
      bad("daemon", `no daemon answers at ${control}`, "systemctl start pilot-tun, or pilot-tun up in the foreground"),
    ];
  }
  const problems = status.problems.map((problem: Problem) =>
    bad("daemon", `${problem.message} [${problem.code}]`, problem.hint),
  );
  return [good("daemon", `runs as ${status.interface}, version ${status.version}`), ...problems];
}

function checkTun(): Finding[] {
  if (existsSync("/dev/net/tun")) return [good("tun", "/dev/net/tun is there")];
  return [bad("tun", "/dev/net/tun is missing", "modprobe tun; in a container: --device /dev/net/tun")];
}

/** A host can have IPv6 off in three ways: in the kernel's command line, by default, or for the interface. */
function checkIpv6(status: StatusReply | undefined): Finding[] {
  if (!existsSync("/proc/net/if_inet6")) {
    return [
      bad("ipv6", "the kernel runs without IPv6", "remove ipv6.disable=1 from the kernel's command line and reboot"),
    ];
  }
  const name = status?.interface;
  const own = name === undefined ? undefined : readText(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`);
  if (own === "1") return [bad("ipv6", `IPv6 is off on ${name}`, `sysctl -w net.ipv6.conf.${name}.disable_ipv6=0`)];
  return [good("ipv6", "IPv6 is on")];
}

async function checkNetwork(status: StatusReply | undefined): Promise<Finding[]> {
  if (status === undefined) return [];
  const { registry, beacon } = status;
  const found: Finding[] = [
    registry.state === "connected"
      ? good("network", `the registry ${registry.address} is connected`)
      : bad(
          "network",
          `the registry ${registry.address} is ${registry.state}${registry.error === null ? "" : `: ${registry.error}`}`,
          "pilot-tun netcheck",
        ),
    beacon.state === "ok"
      ? good(
          "network",
          `the beacon ${beacon.address} answers${beacon.transport === "tcp" ? ", over TCP: UDP is blocked" : ""}`,
        )
      : bad("network", `the beacon ${beacon.address} does not answer`, "pilot-tun netcheck"),
  ];
  const { stdout } = await runCommand("ip", ["-6", "route", "show", "dev", status.interface]);
  const hasRoute = stdout.split("\n").some((line) => /^fd[0-9a-f:]*::\/48 /.test(line));
  if (!hasRoute)
    found.push(bad("network", `the overlay's route is not on ${status.interface}`, "systemctl restart pilot-tun"));
  return found;
}

async function checkClock(): Promise<Finding[]> {
  const { status, stdout } = await runCommand("timedatectl", ["show", "--property=NTPSynchronized", "--value"]);
  if (status !== 0 || stdout.trim() === "") return [];
  if (stdout.trim() === "yes") return [good("clock", "is synchronised")];
  return [bad("clock", "is not synchronised: ends of trust by date may be early or late", "timedatectl set-ntp true")];
}

async function checkDns(status: StatusReply | undefined): Promise<Finding[]> {
  if (status === undefined) return [];
  const { address, resolved } = status.dns;
  if (address === null) {
    return [
      bad(
        "dns",
        "names under .pilot are not answered here",
        "start without --no-dns, with CAP_NET_BIND_SERVICE for port 53",
      ),
    ];
  }
  const found = [good("dns", `names under .pilot are answered at ${address}`)];
  if (resolved === "applied") found.push(good("dns", "systemd-resolved asks there for .pilot"));
  if (resolved === "refused") {
    found.push(
      bad(
        "dns",
        "systemd-resolved refused what it was told",
        `resolvectl dns ${status.interface} ${address}; resolvectl domain ${status.interface} '~pilot'`,
      ),
    );
  }
  if (resolved === "absent") {
    const hint = `let this host's resolver ask ${address} for pilot; dnsmasq: server=/pilot/${address}`;
    found.push(bad("dns", "systemd-resolved does not run, so programs do not find .pilot by themselves", hint));
  }
  return found;
}

async function checkSystemd(status: StatusReply | undefined): Promise<Finding[]> {
  if (!existsSync("/run/systemd/system")) return [];
  const { stdout } = await runCommand("systemctl", ["is-enabled", "pilot-tun.service"]);
  const enabled = stdout.trim();
  if (enabled === "enabled") return [good("systemd", "pilot-tun.service is enabled")];
  if (enabled === "") return [];
  const found = [
    bad("systemd", `pilot-tun.service is ${enabled}: it does not start with this host`, "systemctl enable pilot-tun"),
  ];
  const config = statSync("/etc/pilot-tun/config.toml", { throwIfNoEntry: false });
  if (status === undefined && config === undefined) {
    const from = "/usr/share/doc/pilot-tun/examples/config.toml";
    found.push(
      bad(
        "systemd",
        "/etc/pilot-tun/config.toml is missing",
        `cp ${from} /etc/pilot-tun/, and name your registry in it`,
      ),
    );
  }
  return found;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}
