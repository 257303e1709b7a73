import type { Lab } from "./lab.ts";

/** What a program on `host` is told by connect(2): the name of the error, or "connected". */
export async function connectError(lab: Lab, host: string, address: string, port: number): Promise<string> {
  return (await connectOutcome(lab, host, address, port)).told;
}

/** With how long connect(2) took; the program's own start, which a busy machine draws out, is no part of it. */
export async function connectOutcome(
  lab: Lab,
  host: string,
  address: string,
  port: number,
): Promise<{ told: string; tookMs: number }> {
  const program = `
import errno, json, socket, sys, time
began = time.monotonic()
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); told = "connected"
except OSError as error:
    told = errno.errorcode.get(error.errno, str(error))
print(json.dumps({"told": told, "tookMs": 1000 * (time.monotonic() - began)}))
`;
  const { stdout, stderr } = await lab.exec(host, "python3", ["-c", program, address, String(port)]);
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout);
}

/** TCP asks again after a second: what came before answered the first packet. */
export const AT_ONCE_MS = 1_000;
