/** What is measured: each brings up a way from host a to host b of a fresh lab, and says what to measure it by. */
import { generateKeyPairSync } from "node:crypto";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { fromHex } from "../../src/base/bytes.ts";
import { LAUNCHER, type Lab, waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { findProgram } from "./programs.ts";

export interface Candidate {
  readonly name: string;
  /** Why it cannot be measured here; undefined when it can. */
  readonly missing: string | undefined;
  /** Starts it on both hosts of the lab, until they say that they are ready; no packet has passed yet. */
  start(lab: Lab): Promise<Bed>;
}

/** One candidate that is up. */
export interface Bed {
  readonly lab: Lab;
  /** Address of b as a reaches it. */
  readonly target: string;
  /** What does the work on both hosts; none when the kernel does it. */
  readonly daemons: readonly LabProcess[];
  /** Where the daemon of b is on the underlay, and its public key; undefined when the kernel does the work. */
  readonly farEnd?: { readonly port: number; readonly publicKey: Uint8Array };
  /** Ends the daemons and starts them again with what they know of each other; undefined without daemons. */
  readonly restart: (() => Promise<Bed>) | undefined;
  /** Takes away what lies outside the lab. */
  stop(): Promise<void>;
}

export const HOSTS = ["a", "b"] as const;

/** The wire itself, without a tunnel: what is possible at all. */
export const raw: Candidate = {
  name: "raw",
  missing: undefined,
  start: async (lab) => ({
    lab,
    target: lab.network.address6Of("b"),
    daemons: [],
    restart: undefined,
    stop: async () => undefined,
  }),
};

/** This checkout, with a rendezvous of its own, and trust made the way an operator makes it. */
export const pilotTun = pilotTunBy("pilot-tun", () => LAUNCHER);

/** The same, each daemon preferred to all ordinary programs, as docs/service.md has it. */
export const pilotTunRealtime = pilotTunBy("preferred", realtimeLauncher);

function pilotTunBy(name: string, launcherOf: (lab: Lab) => string): Candidate {
  return {
    name,
    missing: undefined,
    start: async (lab) => {
      const launcher = launcherOf(lab);
      await lab.startRendezvous();
      await Promise.all(HOSTS.map((host) => lab.startNode(host, { launcher })));
      await lab.trust("a", "b");
      return pilotBed(lab, launcher);
    },
  };
}

function realtimeLauncher(lab: Lab): string {
  const path = `${lab.folder}/preferred`;
  writeFileSync(path, `#!/bin/sh\nexec chrt --rr --reset-on-fork 1 ${LAUNCHER} "$@"\n`, { mode: 0o755 });
  return path;
}

function pilotBed(lab: Lab, launcher: string): Bed {
  return {
    lab,
    target: lab.overlay("b"),
    daemons: HOSTS.map((host) => lab.node(host).process),
    restart: () => restartPilot(lab, [], launcher),
    stop: async () => undefined,
  };
}

/** Both daemons anew; `extraArgsOfB` are further options of `pilot-tun up` on b. */
export async function restartPilot(
  lab: Lab,
  extraArgsOfB: readonly string[] = [],
  launcher: string = LAUNCHER,
): Promise<Bed> {
  await Promise.all(HOSTS.map((host) => lab.stopNode(host)));
  await Promise.all([lab.startNode("a", { launcher }), lab.startNode("b", { launcher, extraArgs: extraArgsOfB })]);
  return pilotBed(lab, launcher);
}

/** wireguard-go, the userspace tunnel to compare with; WGGO names another binary than the one on the PATH. */
export function wireguardGo(binary: string | undefined): Candidate {
  return {
    name: "wireguard-go",
    missing: binary === undefined ? "wireguard-go is not installed, and WGGO names none" : undefined,
    start: async (lab) => {
      const ends = HOSTS.map((host, index) => new WireguardEnd(lab, host, index, binary!));
      return await wireguardBed(lab, ends as [WireguardEnd, WireguardEnd]);
    },
  };
}

/** What WGGO names, or what is on the PATH. */
export function findWireguard(): string | undefined {
  return findProgram("wireguard-go", "WGGO");
}

async function wireguardBed(lab: Lab, ends: readonly [WireguardEnd, WireguardEnd]): Promise<Bed> {
  await Promise.all(ends.map((end) => end.start()));
  await ends[0].join(ends[1]);
  await ends[1].join(ends[0]);
  const stop = async (): Promise<void> => {
    await Promise.all(ends.map((end) => end.stop()));
  };
  return {
    lab,
    target: ends[1].inner,
    daemons: ends.map((end) => end.process),
    farEnd: { port: WIREGUARD_PORT, publicKey: fromHex(ends[1].publicKey)! },
    restart: async () => {
      await stop();
      return await wireguardBed(lab, ends);
    },
    stop,
  };
}

/** One daemon, set up through its cross-platform userspace API so that no other tool is needed. */
class WireguardEnd {
  readonly inner: string;
  readonly #lab: Lab;
  readonly #host: string;
  readonly #binary: string;
  /** The folder of its sockets is shared by all namespaces: the name must be unique on the machine. */
  readonly #device: string;
  readonly #keys = rawKeyPair();
  #process: LabProcess | undefined;

  constructor(lab: Lab, host: string, index: number, binary: string) {
    this.#lab = lab;
    this.#host = host;
    this.#binary = binary;
    this.#device = `wg${process.pid}${host}`;
    this.inner = `fd98::${index + 1}`;
  }

  get process(): LabProcess {
    return this.#process!;
  }

  /** Hexadecimal. */
  get publicKey(): string {
    return this.#keys.publicKey;
  }

  get #socket(): string {
    return `/var/run/wireguard/${this.#device}.sock`;
  }

  async start(): Promise<void> {
    const env = { LOG_LEVEL: "error", WG_PROCESS_FOREGROUND: "1" };
    this.#process = this.#lab.spawn(this.#host, this.#binary, ["-f", this.#device], { env });
    await waitUntil(`wireguard-go on ${this.#host}`, () => existsSync(this.#socket) || !this.process.isRunning);
    if (!this.process.isRunning) throw new Error(`wireguard-go did not start\n${this.process.report()}`);
    await this.#configure(`private_key=${this.#keys.privateKey}\nlisten_port=${WIREGUARD_PORT}\n`);
    await this.#ip("link", "set", "dev", this.#device, "mtu", "1420", "up");
    await this.#ip("addr", "add", `${this.inner}/64`, "dev", this.#device, "nodad");
  }

  async join(other: WireguardEnd): Promise<void> {
    const endpoint = `${this.#lab.network.addressOf(other.#host)}:${WIREGUARD_PORT}`;
    await this.#configure(`public_key=${other.#keys.publicKey}\nendpoint=${endpoint}\nallowed_ip=${other.inner}/128\n`);
  }

  async stop(): Promise<void> {
    await this.#process?.stop();
    rmSync(this.#socket, { force: true });
  }

  async #configure(settings: string): Promise<void> {
    const answer = await askSocket(this.#socket, `set=1\n${settings}\n`);
    if (!answer.startsWith("errno=0")) throw new Error(`wireguard-go refused its configuration: ${answer}`);
  }

  async #ip(...args: readonly string[]): Promise<void> {
    const { code, stderr } = await this.#lab.exec(this.#host, "ip", args);
    if (code !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr}`);
  }
}

const WIREGUARD_PORT = 51820;

/** X25519, hexadecimal. */
function rawKeyPair(): { privateKey: string; publicKey: string } {
  const jwk = generateKeyPairSync("x25519").privateKey.export({ format: "jwk" });
  const hex = (text: string | undefined): string => Buffer.from(text ?? "", "base64url").toString("hex");
  return { privateKey: hex(jwk.d), publicKey: hex(jwk.x) };
}

function askSocket(path: string, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = createConnection(path, () => socket.write(request));
    socket.setTimeout(5_000, () => socket.destroy(new Error(`no answer from ${path}`)));
    socket.setEncoding("utf8").on("data", (text: string) => {
      answer += text;
      if (answer.includes("\n\n")) socket.end();
    });
    socket.once("error", reject);
    socket.once("close", () => resolve(answer));
  });
}
