/**
 * An ssh server with keys of its own in the lab's folder, and a client that knows only those. The server believes that root
 * lives in the lab's folder, by a password file that only its own mount namespace has: nothing of the machine is touched.
 */
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import type { ExecResult, Lab } from "./lab.ts";
import type { LabProcess } from "./lab-process.ts";

const PORT = "22";

export class SshServer {
  readonly #lab: Lab;
  readonly #address: string;
  readonly #folder: string;
  readonly #process: LabProcess;

  /** Listens at this address of the host. */
  static async start(lab: Lab, host: string, address: string): Promise<SshServer> {
    const folder = `${lab.folder}/ssh-${host}`;
    mkdirSync(`${folder}/home/.ssh`, { recursive: true, mode: 0o700 });
    await run(lab, host, "ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", `${folder}/key`]);
    copyFileSync(`${folder}/key.pub`, `${folder}/home/.ssh/authorized_keys`);
    chmodSync(`${folder}/home/.ssh/authorized_keys`, 0o600);
    const { stdout } = await run(lab, host, "dropbearkey", ["-t", "ed25519", "-f", `${folder}/host-key`]);
    writeFileSync(`${folder}/known_hosts`, `${address} ${/^ssh-ed25519 \S+/m.exec(stdout)![0]}\n`);
    writeFileSync(`${folder}/passwd`, `root:x:0:0:root:${folder}/home:/bin/sh\n`);
    const dropbear = `dropbear -F -E -s -r ${folder}/host-key -P ${folder}/pid -p [${address}]:${PORT}`;
    const script = `mount --bind ${folder}/passwd /etc/passwd && exec ${dropbear}`;
    const server = lab.spawn(host, "unshare", ["-m", "sh", "-c", script]);
    await server.waitForLine(/Not backgrounding/);
    return new SshServer(lab, address, folder, server);
  }

  private constructor(lab: Lab, address: string, folder: string, process: LabProcess) {
    this.#lab = lab;
    this.#address = address;
    this.#folder = folder;
    this.#process = process;
  }

  /** Runs a command there, for a program on `from`. */
  exec(from: string, command: string): Promise<ExecResult> {
    return this.#lab.exec(from, "ssh", [...this.#options, "-p", PORT, `root@${this.#address}`, command]);
  }

  /** Copies a file there. */
  copy(from: string, file: string, to: string): Promise<ExecResult> {
    return this.#lab.exec(from, "scp", [
      "-q",
      "-O",
      ...this.#options,
      "-P",
      PORT,
      file,
      `root@[${this.#address}]:${to}`,
    ]);
  }

  async stop(): Promise<void> {
    await this.#process.stop();
  }

  get #options(): string[] {
    const options = [
      `UserKnownHostsFile=${this.#folder}/known_hosts`,
      "GlobalKnownHostsFile=/dev/null",
      "StrictHostKeyChecking=yes",
      "IdentitiesOnly=yes",
      "BatchMode=yes",
    ];
    return ["-F", "/dev/null", "-i", `${this.#folder}/key`, ...options.flatMap((option) => ["-o", option])];
  }
}

async function run(lab: Lab, host: string, program: string, args: readonly string[]): Promise<ExecResult> {
  const result = await lab.exec(host, program, args);
  if (result.code !== 0) throw new Error(`${program}: ${result.stderr}`);
  return result;
}
