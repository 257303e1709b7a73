/**
 * OpenSSH's server with keys of its own in the lab's folder, and a client that knows only those. The server believes that root
 * lives in the lab's folder, by files of passwords that only its own mount namespace has: nothing of the machine is touched.
 */
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { ExecResult, Lab } from "./lab.ts";
import type { LabProcess } from "./lab-process.ts";

const PORT = "22";
/** The machine's own, or what scripts/setup unpacked. */
const SSHD = [
  "/usr/sbin/sshd",
  fileURLToPath(new URL("../../node_modules/.lab-programs/usr/sbin/sshd", import.meta.url)),
].find((path) => existsSync(path));
/** Keys alone, and none of the machine's own ways to let people in. */
const OPTIONS = [
  ...["UsePAM=no", "PasswordAuthentication=no", "KbdInteractiveAuthentication=no", "StrictModes=no", "PidFile=none"],
  ...["AuthorizedKeysFile=.ssh/authorized_keys", "Subsystem=sftp internal-sftp"],
]
  .map((option) => `-o '${option}'`)
  .join(" ");

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
    await run(lab, host, "ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", `${folder}/host-key`]);
    writeFileSync(`${folder}/known_hosts`, `${address} ${readFileSync(`${folder}/host-key.pub`, "utf8")}`);
    const root = `root:x:0:0:root:${folder}/home:/bin/sh`;
    writeFileSync(`${folder}/passwd`, `${root}\nsshd:x:65534:65534::/run/sshd:/usr/sbin/nologin\n`);
    writeFileSync(`${folder}/shadow`, "root:*:19000:0:99999:7:::\n", { mode: 0o600 });
    const script = [
      ...["passwd", "shadow"].map((name) => `mount --bind ${folder}/${name} /etc/${name}`),
      ...["mount -t tmpfs none /run", "mkdir -m 755 /run/sshd"],
      `exec ${SSHD} -D -e -f /dev/null -h ${folder}/host-key ${OPTIONS} -o ListenAddress=[${address}]:${PORT}`,
    ].join(" && ");
    const server = lab.spawn(host, "unshare", ["-m", "sh", "-c", script]);
    await server.waitForLine(/Server listening/);
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
    return this.#lab.exec(from, "scp", ["-q", ...this.#options, "-P", PORT, file, `root@[${this.#address}]:${to}`]);
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
