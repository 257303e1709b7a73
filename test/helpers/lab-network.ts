/**
 * The namespaces of one lab and the wires between them. Names carry the process that made them, with its start time:
 * what a crashed run left is recognised by that and removed by the next. Nothing is made outside the namespaces.
 *
 *   switch:  a ── net ── b        net is a bridge; the rendezvous runs there
 *                  └──── c
 *   pair:    a ── b               one veth pair, nothing between; the rendezvous runs on a
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { promisify } from "node:util";

export type Topology = "switch" | "pair";

/** Of the bridge, where the rendezvous of a switched lab is. */
export const NET = "net";
const UNDERLAY_PREFIX = "10.77.0.";
const UNDERLAY6_PREFIX = "fd77::";

export class LabNetwork {
  readonly hosts: readonly string[];
  readonly topology: Topology;
  /** Begins the names of everything this lab owns. */
  readonly key: string;

  constructor(name: string, hosts: readonly string[], topology: Topology) {
    const label = name.replaceAll(/[^a-z0-9]+/gi, "").slice(0, 16) || "lab";
    this.key = `pt-${process.pid}-${startTimeOf(process.pid)}-${label}${randomBytes(2).toString("hex")}`;
    this.hosts = hosts;
    this.topology = topology;
  }

  get allHosts(): readonly string[] {
    return this.topology === "switch" ? [NET, ...this.hosts] : this.hosts;
  }

  namespaceOf(host: string): string {
    if (!this.allHosts.includes(host)) throw new Error(`this lab has no host ${host}: ${this.allHosts.join(", ")}`);
    return `${this.key}-${host}`;
  }

  /** Underlay IPv4 address. */
  addressOf(host: string): string {
    return `${UNDERLAY_PREFIX}${this.#numberOf(host)}`;
  }

  /** Underlay IPv6 address. */
  address6Of(host: string): string {
    return `${UNDERLAY6_PREFIX}${this.#numberOf(host)}`;
  }

  async create(): Promise<void> {
    requireCapabilities();
    await removeStaleNetworks();
    const [first, ...more] = this.allHosts;
    await this.#addNamespace(first!); // the first of a machine sets the folder of all up
    await Promise.all(more.map((host) => this.#addNamespace(host)));
    if (this.topology === "switch") await this.#wireSwitch();
    else await this.#wirePair();
    const others = this.allHosts.slice(1);
    await Promise.all(others.map((host) => this.#checkWire(host)));
  }

  async remove(): Promise<void> {
    await Promise.all(this.allHosts.map((host) => removeNamespace(`${this.key}-${host}`)));
  }

  async #addNamespace(host: string): Promise<void> {
    const namespace = this.namespaceOf(host);
    await run("ip", ["netns", "add", namespace]).catch((error: Error) => {
      throw new Error(`the lab cannot make network namespaces here (ip netns add was refused): ${error.message}`);
    });
    await ip(namespace, "link", "set", "dev", "lo", "up");
    // No waiting for duplicate address detection, no addresses from elsewhere. Where /proc/sys is read-only the
    // addresses are given one by one without detection, which is enough.
    const settings = ["all.accept_dad=0", "default.accept_dad=0", "default.accept_ra=0"];
    await run("ip", [
      ...["netns", "exec", namespace, "sysctl", "-q", "-w"],
      ...settings.map((setting) => `net.ipv6.conf.${setting}`),
    ]).catch(() => undefined);
  }

  async #wireSwitch(): Promise<void> {
    const net = this.namespaceOf(NET);
    // Without an address of its own a bridge takes the lowest of its ports, another one whenever a host is unplugged.
    await ip(net, "link", "add", "br0", "address", "02:00:00:00:77:01", "type", "bridge");
    await this.#giveAddresses(NET, "br0");
    const plugIn = async (host: string): Promise<void> => {
      const names = ["name", "eth0", "netns", this.namespaceOf(host), "type", "veth", "peer", "name", `to-${host}`];
      await run("ip", ["link", "add", ...names, "netns", net]);
      await ip(net, "link", "set", "dev", `to-${host}`, "master", "br0", "up");
      await this.#giveAddresses(host, "eth0");
    };
    await Promise.all(this.hosts.map(plugIn));
  }

  async #wirePair(): Promise<void> {
    const [first, second] = this.hosts as readonly [string, string];
    const names = ["name", "eth0", "netns", this.namespaceOf(first), "type", "veth", "peer", "name", "eth0"];
    await run("ip", ["link", "add", ...names, "netns", this.namespaceOf(second)]);
    await this.#giveAddresses(first, "eth0");
    await this.#giveAddresses(second, "eth0");
  }

  async #giveAddresses(host: string, device: string): Promise<void> {
    const namespace = this.namespaceOf(host);
    await ip(namespace, "addr", "add", `${this.addressOf(host)}/24`, "dev", device);
    await ip(namespace, "addr", "add", `${this.address6Of(host)}/64`, "dev", device, "nodad");
    await ip(namespace, "link", "set", "dev", device, "up");
  }

  async #checkWire(host: string): Promise<void> {
    const first = this.addressOf(this.allHosts[0]!);
    const ping = ["netns", "exec", this.namespaceOf(host), "ping", "-q", "-c", "1", "-W", "3", first];
    await run("ip", ping).catch((error: Error) => {
      throw new Error(`the lab's network does not pass packets from ${host}: ${error.message}`);
    });
  }

  #numberOf(host: string): number {
    if (host === NET) return 1;
    const index = this.hosts.indexOf(host);
    if (index === -1) throw new Error(`this lab has no host ${host}: ${this.allHosts.join(", ")}`);
    return 10 + index;
  }
}

/** What crashed runs left: namespaces with what runs in them, and folders. */
export async function removeStaleNetworks(): Promise<void> {
  for (const name of listFolder("/run/netns").filter(isStale)) await removeNamespace(name);
  for (const name of listFolder(tmpdir()).filter(isStale)) {
    rmSync(`${tmpdir()}/${name}`, { recursive: true, force: true });
  }
}

function isStale(name: string): boolean {
  const [, pid, startTime] = /^pt-(\d+)-(\d+)-/.exec(name) ?? [];
  return pid !== undefined && startTimeOf(Number(pid)) !== startTime;
}

async function removeNamespace(namespace: string): Promise<void> {
  if (!existsSync(`/run/netns/${namespace}`)) return;
  for (let attempt = 0; attempt < 40; attempt++) {
    const inside = await pidsInside(namespace);
    if (inside.length === 0) break;
    for (const pid of inside) killIfThere(pid);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await run("ip", ["netns", "del", namespace]).catch((error: Error) => {
    if (existsSync(`/run/netns/${namespace}`)) throw error; // else another run that found it stale was quicker
  });
}

async function pidsInside(namespace: string): Promise<number[]> {
  const lines = await run("ip", ["netns", "pids", namespace]).catch(() => "");
  return lines.split("\n").filter(Boolean).map(Number);
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it has ended by itself
  }
}

function requireCapabilities(): void {
  if (process.getuid?.() !== 0) throw new Error("the lab needs root: run the tests with sudo");
  if (!existsSync("/dev/net/tun")) throw new Error("the lab needs /dev/net/tun, and this machine has none");
}

/** In clock ticks since boot, proc_pid_stat(5) field 22; undefined when there is no such process. */
function startTimeOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return text
      .slice(text.lastIndexOf(")") + 2)
      .split(" ")
      .at(19);
  } catch {
    return undefined;
  }
}

function listFolder(path: string): string[] {
  return existsSync(path) ? readdirSync(path) : [];
}

async function ip(namespace: string, ...args: readonly string[]): Promise<string> {
  return await run("ip", ["-n", namespace, ...args]);
}

async function run(program: string, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(program, [...args], { timeout: COMMAND_TIMEOUT_MS });
  return stdout;
}

const COMMAND_TIMEOUT_MS = 30_000;
