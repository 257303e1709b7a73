/** Ordinary programs that say in what way, and when, their conversation ended: what a cut must be felt by. */
import { availableParallelism, loadavg } from "node:os";
import type { Lab } from "./lab.ts";
import type { LabProcess } from "./lab-process.ts";

const WATCH = `
import socket, sys, time
host, port = sys.argv[1], int(sys.argv[2])
def watch(act):
    try:
        while act(): pass
        print('ended by EOF', time.time())
    except OSError as error:
        print('ended by', type(error).__name__, time.time())
`;
const ACCEPT = `${WATCH}
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((host, port)); s.listen(); print('ready')
c, _ = s.accept()
`;
const CONNECT = `${WATCH}
c = socket.create_connection((host, port))
`;
const BULK_SERVER = `${ACCEPT}
block = b'x' * 65536
watch(lambda: c.send(block))
`;
const BULK_CLIENT = `${CONNECT}
c.recv(1); print('ready')
watch(lambda: c.recv(65536))
`;
const IDLE_SERVER = `${ACCEPT}
watch(lambda: c.recv(1))
`;
const IDLE_CLIENT = `${CONNECT}
c.send(b'hello'); time.sleep(0.2); print('ready')
while True: watch(lambda: c.recv(1)); break
`;
/** Connected sockets at both ends; after the first datagrams both only wait. */
const UDP_SERVER = `${WATCH}
c = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); c.bind((host, port)); print('ready')
data, peer = c.recvfrom(100); c.connect(peer); c.send(b'welcome')
watch(lambda: c.recv(100))
`;
const UDP_CLIENT = `${WATCH}
c = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); c.connect((host, port)); c.settimeout(0.5)
while True:
    c.send(b'hello')
    try: c.recv(100); break
    except TimeoutError: pass
c.settimeout(None); print('ready')
watch(lambda: c.recv(100))
`;

const PAIRS = {
  bulk: [BULK_SERVER, BULK_CLIENT],
  idle: [IDLE_SERVER, IDLE_CLIENT],
  udp: [UDP_SERVER, UDP_CLIENT],
} as const;

export interface WatchedPair {
  readonly server: LabProcess;
  readonly client: LabProcess;
}

/** A server on one host, a client on the other, and a conversation between them that is under way. */
export async function converse(
  lab: Lab,
  kind: keyof typeof PAIRS,
  ends: { readonly client: string; readonly server: string; readonly port: number },
): Promise<WatchedPair> {
  const address = lab.overlay(ends.server);
  const [serverText, clientText] = PAIRS[kind];
  const words = (text: string) => ["-u", "-c", text, address, String(ends.port)];
  const server = lab.spawn(ends.server, "python3", words(serverText));
  await server.waitForLine(/ready/);
  const client = lab.spawn(ends.client, "python3", words(clientText));
  await client.waitForLine(/ready/);
  return { server, client };
}

/** How it ended, and when in seconds since 1970. */
export async function endOf(program: LabProcess, timeoutMs = 5_000): Promise<{ how: string; atS: number }> {
  const [, , how = "", at] = (await program.waitForLine(/ended by/, timeoutMs)).split(" ");
  return { how, atS: Number(at) };
}

/** What ordinary programs are forgiven, which note times only when they get a processor themselves; nothing on a free machine. */
export const programSlackS = (): number => (loadavg()[0]! > availableParallelism() ? 0.5 : 0);

/**
 * One request to the daemon's control socket by a program that notes when it sent it, when the answer was there, and for how
 * long of that the daemon had no processor.
 */
export async function timedCall(
  lab: Lab,
  host: string,
  method: string,
  body: object,
  // biome-ignore lint/suspicious/noExplicitAny: tests reach into replies, whose shape the API's own tests hold.
): Promise<{ sentS: number; answeredS: number; waitedS: number; reply: any }> {
  const { control, process } = lab.node(host);
  const words = ["-c", CALL, control, method, String(process.pid)];
  const { stdout, stderr } = await lab.exec(host, "python3", words, { input: JSON.stringify(body) });
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout);
}

const CALL = `
import json, socket, sys, time
body = sys.stdin.buffer.read()
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
head = 'POST /v1/%s HTTP/1.1\\r\\nhost: pilot\\r\\nconnection: close\\r\\ncontent-length: %d\\r\\n\\r\\n' % (sys.argv[2], len(body))
def waited(): return int(open('/proc/%s/schedstat' % sys.argv[3]).read().split()[1]) / 1e9
before = waited(); sent = time.time(); s.sendall(head.encode() + body)
answer = b''
while part := s.recv(65536): answer += part
answered = time.time()
print(json.dumps({'sentS': sent, 'answeredS': answered, 'waitedS': waited() - before, 'reply': json.loads(answer.split(b'\\r\\n\\r\\n', 1)[1])}))
`;
