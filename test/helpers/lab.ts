/**
 * A small internet of network namespaces in which tests run real daemons and ordinary programs:
 *
 *   const lab = await Lab.create("trust");
 *   await lab.startRendezvous();
 *   await lab.startNode("a");
 *   await lab.startNode("b");
 *   await lab.trust("a", "b");
 *   const { code } = await lab.exec("a", "ping", ["-6", "-c", "1", lab.overlay("b")]);
 *   await lab.close();
 *
 * Everything it starts is bounded in time and ended by `close`, also after a failure. It needs root, /dev/net/tun and
 * network namespaces, and says in one sentence which of them is missing.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import type { ControlMethod, ReplyOf, RequestOf, Sealed } from "../../src/control/api.ts";
import { ControlClient } from "../../src/control/client.ts";
import { LabNetwork, NET, type Topology } from "./lab-network.ts";
import { LabProcess, type SpawnOptions } from "./lab-process.ts";

export interface LabOptions {
  /** `a`, `b` and `c` unless told. */
  readonly hosts?: readonly string[];
  readonly topology?: Topology;
}

export interface ExecOptions extends SpawnOptions {
  readonly timeoutMs?: number;
}

export interface ExecResult {
  /** TIMED_OUT when it had to be ended. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface NodeOptions {
  /** Its hostname in the overlay; the host's name unless told. */
  readonly name?: string;
  /** Further options of `pilot-tun up`. */
  readonly extraArgs?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Its control socket, from now on, in place of one in the lab's folder. */
  readonly control?: string;
  /** A program that runs `pilot-tun` with the arguments it is given, after doing something else. */
  readonly launcher?: string;
  /** How long it may take until it says that it is ready. */
  readonly timeoutMs?: number;
}

export interface LabNode {
  readonly host: string;
  readonly name: string;
  readonly process: LabProcess;
  readonly control: string;
  readonly stateDir: string;
  /** What it said when it was ready. */
  readonly address: string;
  readonly pilot: string;
  readonly node: number;
}

// biome-ignore lint/suspicious/noExplicitAny: tests reach into replies, whose shape the API's own tests hold.
export type Reply = any;

export const LAUNCHER = fileURLToPath(new URL("../../scripts/pilot-tun", import.meta.url));
export const TIMED_OUT = 124;
export const REGISTRY_PORT = 9000;
export const BEACON_PORT = 9001;

export class Lab {
  readonly network: LabNetwork;
  /** For state, sockets and files of this lab; goes away with it. */
  readonly folder: string;
  /** Key: host. BOUNDED by the hosts; a restarted node takes the place of the last. */
  readonly #nodes = new Map<string, LabNode>();
  /** Key: host, of those that were given another. BOUNDED by the hosts. */
  readonly #controls = new Map<string, string>();
  /** In the order of their start. BOUNDED by what one test starts. */
  readonly #processes: LabProcess[] = [];
  #rendezvous: LabProcess | undefined;
  #closed: Promise<void> | undefined;

  static async create(name: string, options: LabOptions = {}): Promise<Lab> {
    const lab = new Lab(new LabNetwork(name, options.hosts ?? ["a", "b", "c"], options.topology ?? "switch"));
    try {
      await lab.network.create();
    } catch (error) {
      await lab.close().catch(() => undefined); // what went wrong first is what must be read
      throw error;
    }
    return lab;
  }

  private constructor(network: LabNetwork) {
    this.network = network;
    this.folder = mkdtempSync(`${tmpdir()}/${network.key}-`);
    chmodSync(this.folder, 0o711); // daemons become other users
  }

  // ---- programs -----------------------------------------------------------------------------------------------------

  /** Runs a program to its end. */
  async exec(
    host: string,
    program: string,
    args: readonly string[] = [],
    options: ExecOptions = {},
  ): Promise<ExecResult> {
    const child = this.#start(host, program, args, options);
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? EXEC_TIMEOUT_MS);
    const { code } = await child.ended;
    clearTimeout(timer);
    this.#processes.splice(this.#processes.indexOf(child), 1);
    return { code: code ?? TIMED_OUT, stdout: child.stdout, stderr: child.stderr };
  }

  /** Starts a program that goes on in the background. */
  spawn(host: string, program: string, args: readonly string[] = [], options: SpawnOptions = {}): LabProcess {
    return this.#start(host, program, args, options);
  }

  #start(host: string, program: string, args: readonly string[], options: SpawnOptions): LabProcess {
    if (this.#closed !== undefined) throw new Error("the lab is closed");
    const words = ["netns", "exec", this.network.namespaceOf(host), program, ...args];
    const child = new LabProcess(`${program} on ${host}`, "ip", words, options);
    this.#processes.push(child);
    return child;
  }

  // ---- pilot-tun ----------------------------------------------------------------------------------------------------

  /** Where the rendezvous runs. */
  get rendezvousHost(): string {
    return this.network.topology === "switch" ? NET : this.network.hosts[0]!;
  }

  get registry(): string {
    return `${this.network.addressOf(this.rendezvousHost)}:${REGISTRY_PORT}`;
  }

  get beacon(): string {
    return `${this.network.addressOf(this.rendezvousHost)}:${BEACON_PORT}`;
  }

  /** Called again after it was stopped, it goes on with the same state. */
  async startRendezvous(extraArgs: readonly string[] = [], options: SpawnOptions = {}): Promise<LabProcess> {
    const args = ["rendezvous", "--registry", this.registry, "--beacon", this.beacon];
    const state = ["--state", this.#subfolder("rendezvous")];
    this.#rendezvous = this.spawn(this.rendezvousHost, LAUNCHER, [...args, ...state, ...extraArgs], options);
    await this.#rendezvous.waitForLine(/ready/, READY_TIMEOUT_MS, "stdout");
    return this.#rendezvous;
  }

  get rendezvous(): LabProcess {
    if (this.#rendezvous === undefined) throw new Error("the rendezvous was not started");
    return this.#rendezvous;
  }

  /** Starts a node and waits until it is ready; after `stopNode` it comes back with the same state. */
  async startNode(host: string, options: NodeOptions = {}): Promise<LabNode> {
    const name = options.name ?? host;
    const stateDir = this.#subfolder(`${host}-state`);
    const child = this.spawnNode(host, options);
    const line = await child.waitForLine(/^\{/, options.timeoutMs ?? READY_TIMEOUT_MS, "stdout");
    const ready: Reply = JSON.parse(line);
    if (ready.error !== undefined) throw new Error(`the node on ${host} did not start: ${line}\n${child.report()}`);
    const { address, pilot, node } = ready;
    const running = { host, name, process: child, control: this.#controlOf(host), stateDir, address, pilot, node };
    this.#nodes.set(host, running);
    return running;
  }

  /** Starts a node without waiting for it: for those that must fail, or start before the registry. */
  spawnNode(host: string, options: NodeOptions = {}): LabProcess {
    if (options.control !== undefined) this.#controls.set(host, options.control);
    const where = ["--registry", this.registry, "--beacon", this.beacon];
    const own = ["--state", this.#subfolder(`${host}-state`), "--tun", "pilot0", "--hostname", options.name ?? host];
    const args = ["--json", "--control", this.#controlOf(host), "up", ...where, ...own, ...(options.extraArgs ?? [])];
    return this.spawn(host, options.launcher ?? LAUNCHER, args, options.env === undefined ? {} : { env: options.env });
  }

  async stopNode(host: string, signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const { process } = this.node(host);
    if (signal === "SIGKILL") process.kill("SIGKILL");
    await process.stop();
  }

  node(host: string): LabNode {
    const node = this.#nodes.get(host);
    if (node === undefined) throw new Error(`no node was started on ${host}`);
    return node;
  }

  /** Overlay address of the node on a host. */
  overlay(host: string): string {
    return this.node(host).address;
  }

  /** A command of pilot-tun with --json: its answer; throws when it fails. */
  async pilot(host: string, ...args: readonly string[]): Promise<Reply> {
    const { code, reply, stderr } = await this.tryPilot(host, ...args);
    if (code === 0) return reply;
    throw new Error(`pilot-tun ${args.join(" ")} on ${host} ended with ${code}: ${JSON.stringify(reply)}\n${stderr}`);
  }

  /** The same for commands that may be refused. */
  async tryPilot(host: string, ...args: readonly string[]): Promise<{ code: number; reply: Reply; stderr: string }> {
    const words = ["--control", this.#controlOf(host), "--json", ...args];
    const { code, stdout, stderr } = await this.exec(host, LAUNCHER, words);
    return { code, reply: stdout.trim() === "" ? undefined : JSON.parse(stdout), stderr };
  }

  /** What the daemon of a host says, as `pilot-tun` prints it with --json; a test that asks often starts no program so. */
  ask<M extends ControlMethod>(host: string, method: M, request: RequestOf<M>): Promise<Sealed<ReplyOf<M>>> {
    return new ControlClient(this.#controlOf(host)).call(method, request, { timeoutMs: EXEC_TIMEOUT_MS });
  }

  status(host: string): Promise<Reply> {
    return this.ask(host, "status", {});
  }

  peers(host: string): Promise<Reply> {
    return this.ask(host, "peers", {});
  }

  /** Consent of both sides, and waits until both know of it. */
  async trust(a: string, b: string): Promise<void> {
    const [asker, answerer] = [this.node(a), this.node(b)];
    await this.pilot(a, "trust", "ask", String(answerer.node));
    await waitUntil(`${b} to hear that ${a} asks`, async () => {
      const { requests } = await this.ask(b, "trust/pending", {});
      return requests.some(({ node }) => node === asker.node);
    });
    await this.pilot(b, "trust", "approve", String(asker.node));
    await this.waitForTrust(a, b, "mutual");
    await this.waitForTrust(b, a, "mutual");
  }

  /** What the operator of `a` has to do before it takes `b`, once a pilot-tun, for an agent; b approves if it is asked. */
  async trustAnew(a: string, b: string): Promise<void> {
    const asker = String(this.node(a).node);
    for (const word of ["revoke", "ask"]) await this.pilot(a, "trust", word, String(this.node(b).node));
    await waitUntil(
      `${a} and ${b} to trust each other again`,
      async () => {
        const { requests } = await this.ask(b, "trust/pending", {});
        if (requests.some(({ node }) => String(node) === asker)) await this.pilot(b, "trust", "approve", asker);
        return (await this.trustOf(a, b)) === "mutual" && (await this.trustOf(b, a)) === "mutual";
      },
      30_000,
    );
  }

  /** Until `a` says this of its trust with `b`. */
  async waitForTrust(a: string, b: string, trust: string, timeoutMs?: number): Promise<void> {
    await waitUntil(
      `${a} to say that its trust with ${b} is ${trust}`,
      async () => {
        return (await this.trustOf(a, b)) === trust;
      },
      timeoutMs,
    );
  }

  /** `none` when it has no record. */
  async trustOf(a: string, b: string): Promise<string> {
    const { entries } = await this.ask(a, "trust/ls", {});
    return entries.find(({ node }) => node === this.node(b).node)?.trust ?? "none";
  }

  // ---- the end ------------------------------------------------------------------------------------------------------

  /** Ends and removes everything, last first. The same promise each time. */
  close(): Promise<void> {
    this.#closed ??= this.#tearDown();
    return this.#closed;
  }

  async #tearDown(): Promise<void> {
    const problems: unknown[] = [];
    const note = (error: unknown): void => void problems.push(error);
    await Promise.all(this.#processes.reverse().map((child) => child.stop().catch(note)));
    await this.network.remove().catch(note);
    rmSync(this.folder, { recursive: true, force: true });
    if (problems.length > 0) throw new AggregateError(problems, `the lab was not taken down cleanly: ${problems[0]}`);
  }

  #subfolder(name: string): string {
    const path = `${this.folder}/${name}`;
    mkdirSync(path, { recursive: true, mode: 0o700 });
    return path;
  }

  #controlOf(host: string): string {
    return this.#controls.get(host) ?? `${this.folder}/${host}.sock`;
  }
}

/** Asks again and again until it is so; throws after the time. */
export async function waitUntil(
  what: string,
  isSo: () => Promise<boolean> | boolean,
  timeoutMs = WAIT_MS,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS));
  }
}

/** What is long enough on a slow machine: a test that must bound a time says which. */
const EXEC_TIMEOUT_MS = 40_000;
const READY_TIMEOUT_MS = 30_000;
const WAIT_MS = 20_000;
const POLL_INTERVAL_MS = 50;
