/** The TCP connections that this host's kernel has over IPv6 (tcp6 in proc_net(5)), in this network namespace. */
import { readFileSync } from "node:fs";

export interface TcpConnection {
  /** 16 bytes each. */
  readonly local: Uint8Array;
  readonly remote: Uint8Array;
  readonly localPort: number;
  readonly remotePort: number;
}

/** None where the kernel does not tell. */
export function tcpConnections(): TcpConnection[] {
  try {
    return parseTcpConnections(readFileSync("/proc/net/tcp6", "utf8"));
  } catch {
    return [];
  }
}

/** `sl local_address remote_address st …`; sockets that listen, or wait for the end of time, are none. */
export function parseTcpConnections(text: string): TcpConnection[] {
  const connections: TcpConnection[] = [];
  for (const line of text.split("\n").slice(1)) {
    const [, local, remote, state] = line.trim().split(/\s+/);
    const [near, far] = [endOf(local), endOf(remote)];
    if (near === undefined || far === undefined || !LIVE_STATES.has(Number.parseInt(state ?? "", 16))) continue;
    connections.push({ local: near.address, localPort: near.port, remote: far.address, remotePort: far.port });
  }
  return connections;
}

/** `0450FD…:1F90`: four words, each in the machine's byte order, and the port. */
function endOf(text: string | undefined): { address: Uint8Array; port: number } | undefined {
  const [, address, port] = /^([0-9A-F]{32}):([0-9A-F]{4})$/.exec(text ?? "") ?? [];
  if (address === undefined || port === undefined) return undefined;
  const bytes = Uint8Array.from(address.match(/../g)!, (pair) => Number.parseInt(pair, 16));
  for (let word = 0; word < 16; word += 4) bytes.subarray(word, word + 4).reverse();
  return { address: bytes, port: Number.parseInt(port, 16) };
}

/** ESTABLISHED, FIN_WAIT1 and 2, CLOSE_WAIT, LAST_ACK, CLOSING. */
const LIVE_STATES: ReadonlySet<number> = new Set([1, 4, 5, 8, 9, 11]);
