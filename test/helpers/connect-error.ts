import type { Lab } from "./lab.ts";

/** What a program on `host` is told by connect(2): the name of the error, or "connected". */
export async function connectError(lab: Lab, host: string, address: string, port: number): Promise<string> {
  const program = `
import errno, socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print("connected")
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
`;
  const { stdout } = await lab.exec(host, "python3", ["-c", program, address, String(port)]);
  return stdout.trim();
}
