/**
 * Ordinary programs between the hosts of a soak, and what they must never see: a record that was acknowledged and is not
 * there, or not in its place; a download that is not the file; a connection that ended although both kernels lived on.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import type { Lab } from "../helpers/lab.ts";
import { waitUntil } from "../helpers/lab.ts";
import type { LabProcess } from "../helpers/lab-process.ts";
import { seededBytes } from "../helpers/seeded-bytes.ts";

export interface LedgerRoute {
  readonly from: string;
  readonly to: string;
  readonly port: number;
  /** The one connection lives through everything: both ends' kernels do. */
  readonly survives: boolean;
}

/** Records numbered from 0, each sent when the one before was acknowledged; the far side acknowledges what it has written. */
export class Ledger {
  readonly route: LedgerRoute;
  readonly #server: LabProcess;
  readonly #client: LabProcess;
  readonly #file: string;

  private constructor(route: LedgerRoute, file: string, server: LabProcess, client: LabProcess) {
    this.route = route;
    this.#file = file;
    this.#server = server;
    this.#client = client;
  }

  static async open(lab: Lab, route: LedgerRoute): Promise<Ledger> {
    const file = `${lab.folder}/ledger-${route.from}-${route.to}`;
    const server = lab.spawn(route.to, "python3", ["-u", "-c", WRITE_DOWN, String(route.port), `${file}.written`]);
    await server.waitForLine(/^listening$/);
    const words = ["-u", "-c", DICTATE, lab.overlay(route.to), String(route.port), `${file}.acknowledged`];
    const client = lab.spawn(route.from, "python3", words);
    await client.waitForLine(/^connected$/, 20_000);
    return new Ledger(route, file, server, client);
  }

  get name(): string {
    return `${this.route.from}→${this.route.to}`;
  }

  /** How many records were acknowledged. */
  get acknowledged(): number {
    return existsSync(`${this.#file}.acknowledged`) ? Number(readFileSync(`${this.#file}.acknowledged`, "utf8")) : 0;
  }

  get connections(): number {
    return this.#client.stdout.match(/^connected$/gm)?.length ?? 0;
  }

  /** Throws when it stands still for longer, or has lost a connection that it may not lose. */
  async advances(withinMs: number): Promise<void> {
    const before = this.acknowledged;
    await waitUntil(`the ledger ${this.name} to go on`, () => this.acknowledged > before + 2, withinMs);
    this.#checkConnection();
  }

  /** Ends it, and compares what was acknowledged with what was written down. Returns how many records that were. */
  async close(): Promise<number> {
    if (!this.#client.isRunning) throw new Error(`the ledger ${this.name} ended: ${this.#client.report()}`);
    await this.#client.stop();
    await this.#server.stop();
    this.#checkConnection();
    const { acknowledged } = this;
    const written = readFileSync(`${this.#file}.written`, "utf8").trimEnd().split("\n").map(Number);
    // A record is sent again on the next connection when its acknowledgement was lost.
    const distinct = written.filter((record, index) => index === 0 || record !== written[index - 1]);
    const wrong = distinct.findIndex((record, index) => record !== index);
    if (wrong >= 0) throw new Error(`the ledger ${this.name} has ${distinct[wrong]} where ${wrong} belongs`);
    if (distinct.length < acknowledged) throw new Error(`${acknowledged} acknowledged, ${distinct.length} there`);
    if (written.length - distinct.length >= this.connections) throw new Error(`records of ${this.name} came twice`);
    return acknowledged;
  }

  #checkConnection(): void {
    if (!this.route.survives || this.connections === 1) return;
    throw new Error(`the connection ${this.name} was lost: ${this.#client.report().slice(-500)}`);
  }
}

/** A file of random bytes behind an HTTP server, and downloads of it that must be the file. */
export class Downloads {
  readonly #lab: Lab;
  readonly #url: string;
  readonly #digest: string;
  #count = 0;

  private constructor(lab: Lab, url: string, digest: string) {
    this.#lab = lab;
    this.#url = url;
    this.#digest = digest;
  }

  static async open(lab: Lab, from: string, megabytes: number): Promise<Downloads> {
    const folder = `${lab.folder}/www`;
    mkdirSync(folder);
    const body = Buffer.alloc(megabytes << 20, Buffer.from(seededBytes(7)(65_521)));
    writeFileSync(`${folder}/file`, body);
    const server = lab.spawn(from, "python3", ["-u", "-m", "http.server", "8000", "--bind", "::", "-d", folder]);
    await server.waitForLine(/Serving HTTP/);
    return new Downloads(lab, `http://[${lab.overlay(from)}]:8000/file`, sha256(body));
  }

  get count(): number {
    return this.#count;
  }

  /**
   * Under way when it returns; `whole` then waits for the rest, and throws unless it is the file. Slow enough that something
   * can happen meanwhile: `rate` as curl understands it.
   */
  async begin(to: string, rate: string, timeoutS: number): Promise<{ readonly whole: Promise<void> }> {
    const file = `${this.#lab.folder}/got-${this.#count++}`;
    const whole = this.#fetch(to, file, rate, timeoutS);
    whole.catch(() => undefined); // whoever began it looks at it, perhaps only later
    const hasBegun = () => existsSync(file) && statSync(file).size > 0;
    await Promise.race([waitUntil("a download to begin", hasBegun, 10_000), whole]);
    return { whole };
  }

  async #fetch(to: string, file: string, rate: string, timeoutS: number): Promise<void> {
    const args = ["-gsSf", "-m", String(timeoutS), "--limit-rate", rate, "-o", file, this.#url];
    const { code, stderr } = await this.#lab.exec(to, "curl", args, { timeoutMs: (timeoutS + 5) * 1000 });
    if (code !== 0) throw new Error(`a download to ${to} failed with ${code}: ${stderr}`);
    if (sha256(readFileSync(file)) !== this.#digest) throw new Error(`a download to ${to} is not the file`);
    truncateSync(file);
  }
}

/** Many short conversations: what each of them would leave behind is multiplied. */
export class Churn {
  readonly #lab: Lab;
  readonly #from: string;
  readonly #to: string;

  private constructor(lab: Lab, from: string, to: string) {
    this.#lab = lab;
    this.#from = from;
    this.#to = to;
  }

  static async open(lab: Lab, from: string, to: string): Promise<Churn> {
    await lab.spawn(to, "python3", ["-u", "-c", ECHO]).waitForLine(/^listening$/);
    return new Churn(lab, from, to);
  }

  /** So many TCP connections and as many UDP flows. */
  async stir(count: number): Promise<void> {
    const words = ["-c", TALK_SHORTLY, this.#lab.overlay(this.#to), String(count)];
    const { code, stderr } = await this.#lab.exec(this.#from, "python3", words, { timeoutMs: 60_000 });
    if (code !== 0) throw new Error(`short conversations from ${this.#from} failed: ${stderr.slice(-500)}`);
  }
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

const WRITE_DOWN = `
import socket, sys, threading
book = open(sys.argv[2], "ab", buffering=0)
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6)
print("listening")
lock, newest = threading.Lock(), 0
def serve(connection, number):
    try:
        for line in connection.makefile("rb"):
            with lock:
                # What a connection still holds that was given up is no record: it was sent again on the next.
                if number != newest or not line.endswith(b"\\n"): break
                book.write(line)
            connection.sendall(line)
    except OSError: pass
    connection.close()
while True:
    connection, _ = server.accept()
    with lock: newest += 1
    threading.Thread(target=serve, args=(connection, newest), daemon=True).start()
`;

/** The count is written after the acknowledgement: what it says was acknowledged surely was. */
const DICTATE = `
import os, socket, sys, time
count = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT, 0o600)
record = 0
while True:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
            connection.settimeout(90)
            replies = connection.makefile("rb")
            print("connected")
            while True:
                connection.sendall(b"%d\\n" % record)
                line = replies.readline()
                if not line.endswith(b"\\n"): raise OSError("ended")
                if int(line) != record: sys.exit("another record was acknowledged")
                record += 1
                os.pwrite(count, b"%d" % record, 0)
                time.sleep(0.02)
    except OSError as error:
        print("broken at", record, type(error).__name__, error)
        time.sleep(0.2)
`;

const ECHO = `
import socket, threading
tcp = socket.create_server(("::", 7000), family=socket.AF_INET6, backlog=256)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", 7000))
def reflect():
    while True:
        data, who = udp.recvfrom(2000)
        udp.sendto(data, who)
threading.Thread(target=reflect, daemon=True).start()
print("listening")
while True:
    connection, _ = tcp.accept()
    connection.settimeout(10)
    try: connection.sendall(connection.recv(2000))
    except OSError: pass
    connection.close()
`;

const TALK_SHORTLY = `
import socket, sys
data = b"x" * 1200
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 7000), 20) as tcp:
        tcp.settimeout(20)
        tcp.sendall(data)
        assert tcp.recv(2000)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.settimeout(1)
        udp.connect((sys.argv[1], 7000))
        for attempt in range(10):
            udp.send(data)
            try:
                assert udp.recv(2000) == data
                break
            except TimeoutError: pass
        else: sys.exit("no datagram came back")
`;
