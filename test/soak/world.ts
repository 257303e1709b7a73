/**
 * The hosts of a soak. a and b run their daemons as services (started again when they end, with their TUN device kept); c is a
 * plain agent without a service, whose clock can be set; d was there once. The daemon on b lives from the beginning to the end:
 * on it leaks are looked for.
 */
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import type { DropReason } from "../../src/base/drop-reason.ts";
import type { PeersReply, StatusReply } from "../../src/control/api.ts";
import { ControlClient } from "../../src/control/client.ts";
import { Lab, waitUntil } from "../helpers/lab.ts";
import { LabClock } from "../helpers/lab-clock.ts";
import { NET } from "../helpers/lab-network.ts";
import { LabService } from "../helpers/lab-service.ts";

export const SERVICE_HOSTS = ["a", "b"] as const;
export type ServiceHost = (typeof SERVICE_HOSTS)[number];

/** What must be as it was whatever happens to a daemon. */
export interface NodeFacts {
  readonly address: string | null;
  readonly publicKey: string | null;
  readonly trust: readonly { readonly node: number; readonly trust: string; readonly epoch: number }[];
}

export class SoakWorld {
  readonly lab: Lab;
  readonly services: Readonly<Record<ServiceHost, LabService>>;
  readonly clock: LabClock;

  private constructor(lab: Lab, services: SoakWorld["services"], clock: LabClock) {
    this.lab = lab;
    this.services = services;
    this.clock = clock;
  }

  static async create(): Promise<SoakWorld> {
    const lab = await Lab.create("soak", { hosts: ["a", "b", "c", "d"] });
    try {
      return await SoakWorld.#furnish(lab);
    } catch (error) {
      await lab.close().catch(() => undefined); // what went wrong first is what must be read
      throw error;
    }
  }

  static async #furnish(lab: Lab): Promise<SoakWorld> {
    const clock = new LabClock(`${lab.folder}/clock`);
    await lab.startRendezvous();
    const plain = { env: clock.env, extraArgs: ["--plain-only"] };
    const starts = [lab.startNode("a"), lab.startNode("b"), lab.startNode("c", plain)];
    await Promise.all([...starts, lab.startNode("d", { extraArgs: ["--public"] })]);
    await lab.trust("a", "b");
    await lab.trust("a", "c");
    await lab.trust("b", "c");
    await Promise.all(["a", "b", "d"].map((host) => lab.stopNode(host)));
    // So little that it can be filled, and the audit log with it.
    const options = { diskKiB: DISK_KIB, extraArgs: ["--audit-keep", "2x64K"] };
    const services = { a: new LabService(lab, "a", options), b: new LabService(lab, "b", options) };
    await Promise.all([services.a.waitUntilReady(1), services.b.waitUntilReady(1)]);
    const world = new SoakWorld(lab, services, clock);
    for (const host of SERVICE_HOSTS) await world.#makeHonest(host);
    await world.reaches("a", "b", 10_000);
    await world.reaches("a", "c", 10_000);
    await world.reaches("b", "c", 10_000);
    return world;
  }

  /** Packets meet a narrow place one by one, and a transfer is not over before a fault comes because buffers took it whole. */
  async #makeHonest(host: ServiceHost): Promise<void> {
    await this.run(host, "ethtool", "-K", "eth0", "gso", "off", "tso", "off", "tx-udp-segmentation", "off");
    for (const key of ["rmem", "wmem"])
      await this.run(host, "sysctl", "-q", "-w", `net.ipv4.tcp_${key}=4096 131072 524288`);
  }

  close(): Promise<void> {
    return this.lab.close();
  }

  async startPlain(): Promise<void> {
    await this.lab.startNode("c", { env: this.clock.env, extraArgs: ["--plain-only"] });
  }

  /** Until a ping is answered; after how many ms that was. */
  async reaches(from: string, to: string, withinMs: number): Promise<number> {
    const startedAt = performance.now();
    const ping = ["-6", "-q", "-c", "1", "-W", "1", this.lab.overlay(to)];
    const isAnswered = async (): Promise<boolean> => (await this.lab.exec(from, "ping", ping)).code === 0;
    await waitUntil(`${to} to answer ${from}`, isAnswered, withinMs + slackMs());
    return performance.now() - startedAt;
  }

  async facts(host: string): Promise<NodeFacts> {
    const { address, publicKey } = await this.status(host);
    const { entries } = await this.#client(host).call("trust/ls", {}, CALL);
    const others = entries.filter(({ node }) => node !== this.lab.node("d").node); // about d the operator changes his mind
    return { address, publicKey, trust: others.map(({ node, trust, epoch }) => ({ node, trust, epoch })) };
  }

  status(host: string): Promise<StatusReply> {
    return this.#client(host).call("status", {}, CALL);
  }

  async peer(host: string, of: string): Promise<PeersReply["peers"][number]> {
    const { peers } = await this.#client(host).call("peers", {}, CALL);
    return peers.find(({ node }) => node === this.lab.node(of).node)!;
  }

  #client(host: string): ControlClient {
    return new ControlClient(this.lab.node(host).control);
  }

  /** Nothing is wrong any more, by the daemon's own account. */
  async isContent(host: string, withinMs: number): Promise<void> {
    let last: unknown;
    const isSo = async (): Promise<boolean> => {
      const { registry, problems } = await this.status(host);
      last = { registry, problems };
      return registry.state === "connected" && problems.length === 0;
    };
    await waitUntil(`${host} to have no problem`, isSo, withinMs).catch((error: Error) => {
      throw new Error(`${error.message}: ${JSON.stringify(last)}`);
    });
  }

  async showsProblem(host: string, code: string, withinMs: number): Promise<void> {
    await waitUntil(
      `${host} to show ${code}`,
      async () => (await this.status(host)).problems.some((problem) => problem.code === code),
      withinMs,
    );
  }

  async drops(host: string, reason: DropReason): Promise<number> {
    return (await this.status(host)).drops[reason] ?? 0;
  }

  /** Of the daemon of a service, as a text of proc_pid_status(5). */
  statusOf(host: ServiceHost): string {
    return readFileSync(`/proc/${this.services[host].daemonPid}/status`, "utf8");
  }

  descriptorsOf(host: ServiceHost): number[] {
    return readdirSync(`/proc/${this.services[host].daemonPid}/fd`).map(Number);
  }

  /** The most that its own limit may be set to. */
  mostDescriptorsOf(host: ServiceHost): string {
    const limits = readFileSync(`/proc/${this.services[host].daemonPid}/limits`, "utf8");
    return /^Max open files +\d+ +(\d+)/m.exec(limits)![1]!;
  }

  /** A limit of setrlimit(2) of a running daemon, `SOFT:`: the other one could not be raised again everywhere. */
  async limit(host: ServiceHost, resource: "nofile" | "data", value: string): Promise<void> {
    await this.run(NET, "prlimit", "--pid", String(this.services[host].daemonPid), `--${resource}=${value}`);
  }

  async ip(host: string, ...args: readonly string[]): Promise<void> {
    await this.run(host, "ip", ...args);
  }

  async run(host: string, program: string, ...args: readonly string[]): Promise<void> {
    const { code, stderr } = await this.lab.exec(host, program, args);
    if (code !== 0) throw new Error(`${program} ${args.join(" ")} on ${host}: ${stderr}`);
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** What a machine is forgiven that has more to do than processors to do it. */
const slackMs = (): number => (loadavg()[0]! > availableParallelism() ? 3_000 : 0);

const CALL = { timeoutMs: 10_000 };
const DISK_KIB = 1_024;
