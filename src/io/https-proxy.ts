/**
 * The way out through an HTTP proxy, as the environment names it: HTTPS_PROXY and NO_PROXY in either case, lower case
 * first, with the meaning that curl gives them. The tunnel through the proxy is CONNECT (RFC 9110 §9.3.6).
 */
import { type Socket, connect as tcpConnect } from "node:net";
import { type TLSSocket, connect as tlsConnect } from "node:tls";
import { parseIp } from "../wire/underlay-address.ts";

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export interface HttpsProxy extends HostPort {
  /** The proxy itself is spoken to over TLS. */
  readonly isTls: boolean;
  /** `user:password`, decoded; undefined without. */
  readonly credentials: string | undefined;
}

export type ProxyEnvironment = Readonly<Record<string, string | undefined>>;

/** The proxy to use for this host; undefined for the straight way. A variable that cannot be read is an error text. */
export function proxyFor(target: HostPort, environment: ProxyEnvironment): HttpsProxy | string | undefined {
  const text = environment["https_proxy"] || environment["HTTPS_PROXY"];
  if (!text || isExempt(target, environment["no_proxy"] ?? environment["NO_PROXY"] ?? "")) return undefined;
  return parseProxy(text) ?? "HTTPS_PROXY is not the URL of an HTTP proxy";
}

/** Opens the tunnel; the stream carries the target's bytes from its first on. Rejects with a reason for people. */
export async function connectThrough(proxy: HttpsProxy, target: HostPort, signal: AbortSignal): Promise<Socket> {
  const socket = await openToProxy(proxy, signal);
  const host = target.host.includes(":") ? `[${target.host}]` : target.host;
  const authority = `${host}:${target.port}`;
  const lines = [`CONNECT ${authority} HTTP/1.1`, `Host: ${authority}`];
  if (proxy.credentials !== undefined) {
    lines.push(`Proxy-Authorization: Basic ${Buffer.from(proxy.credentials).toString("base64")}`);
  }
  socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  const status = await readStatus(socket, signal);
  if (status >= 200 && status < 300) return socket;
  socket.destroy();
  const reason = status === 407 ? "it wants a user name and a password" : `it answered ${status}`;
  throw new Error(`the proxy ${proxy.host}:${proxy.port} refused: ${reason}`);
}

/** Resolves once the stream is open; rejects, and destroys it, when it fails or is aborted. */
export function opened<S extends Socket>(
  socket: S,
  event: "connect" | "secureConnect",
  signal: AbortSignal,
): Promise<S> {
  return new Promise((resolve, reject) => {
    const abort = (): void => fail(new Error("it took too long"));
    const fail = (error: Error): void => {
      signal.removeEventListener("abort", abort);
      socket.on("error", () => undefined); // what comes after the first error says nothing new
      socket.destroy();
      reject(error);
    };
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    socket.once("error", fail);
    socket.once(event, () => {
      signal.removeEventListener("abort", abort);
      socket.off("error", fail);
      resolve(socket);
    });
  });
}

async function openToProxy(proxy: HttpsProxy, signal: AbortSignal): Promise<Socket | TLSSocket> {
  const { host, port } = proxy;
  try {
    if (!proxy.isTls) return await opened(tcpConnect({ host, port, noDelay: true }), "connect", signal);
    const name = parseIp(host) === undefined ? { servername: host } : {};
    return await opened(tlsConnect({ host, port, ...name }), "secureConnect", signal);
  } catch (error) {
    throw new Error(`the proxy ${host}:${port} does not answer: ${error instanceof Error ? error.message : error}`);
  }
}

/** Reads the answer's head, no byte more, and returns its status. */
function readStatus(socket: Socket, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    let head = Buffer.alloc(0);
    const end = (error: Error | undefined, status = 0): void => {
      signal.removeEventListener("abort", abort);
      socket.off("readable", read);
      socket.off("error", fail);
      socket.off("close", closed);
      if (error === undefined) return resolve(status);
      socket.on("error", () => undefined);
      socket.destroy();
      reject(error);
    };
    const abort = (): void => end(new Error("the proxy took too long"));
    const fail = (error: Error): void => end(error);
    const closed = (): void => end(new Error("the proxy closed the connection"));
    const read = (): void => {
      for (let chunk = socket.read() as Buffer | null; chunk !== null; chunk = socket.read() as Buffer | null) {
        head = Buffer.concat([head, chunk]);
        const length = head.indexOf("\r\n\r\n");
        if (length >= 0) {
          const rest = head.subarray(length + 4);
          if (rest.length > 0) socket.unshift(rest);
          const status = /^HTTP\/1\.[01] (\d{3})/.exec(head.toString("latin1"))?.[1];
          return end(status === undefined ? new Error("the proxy does not speak HTTP") : undefined, Number(status));
        }
        if (head.length > MAX_HEAD_BYTES) return end(new Error("the proxy's answer does not end"));
      }
    };
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    socket.on("readable", read);
    socket.once("error", fail);
    socket.once("close", closed);
  });
}

function parseProxy(text: string): HttpsProxy | undefined {
  const url = URL.parse(text.includes("://") ? text : `http://${text}`);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:") || url.hostname === "") return undefined;
  const isTls = url.protocol === "https:";
  const credentials = decoded(`${url.username}:${url.password}`);
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? (isTls ? 443 : 80) : Number(url.port),
    isTls,
    credentials: url.username === "" ? undefined : credentials,
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a lone percent sign stands for itself
  }
}

/** NO_PROXY: `*`, names with their subdomains, addresses, IPv4 and IPv6 ranges, each with an optional port. */
function isExempt(target: HostPort, list: string): boolean {
  return list.split(/[\s,]+/).some((entry) => entry !== "" && covers(entry.toLowerCase(), target));
}

function covers(entry: string, target: HostPort): boolean {
  if (entry === "*") return true;
  const host = target.host.toLowerCase();
  const address = parseIp(host);
  if (address !== undefined) return coversAddress(entry, address, target.port);
  const [, name, port] = /^(.*?)(?::(\d+))?$/.exec(entry)!;
  if (port !== undefined && Number(port) !== target.port) return false;
  const domain = name!.replace(/^\*?\./, "");
  return domain !== "" && (host === domain || host.endsWith(`.${domain}`));
}

function coversAddress(entry: string, address: Uint8Array, port: number): boolean {
  const match = /^\[?([0-9a-f:.]+?)\]?(?:\/(\d{1,3}))?$/.exec(entry);
  const range = match === null ? undefined : parseIp(match[1]!);
  if (range === undefined) {
    const [, host, only] = /^\[?([0-9a-f:.]+?)\]?:(\d+)$/.exec(entry) ?? [];
    return host !== undefined && Number(only) === port && coversAddress(host, address, port);
  }
  if (range.length !== address.length) return false;
  const bits = Math.min(Number(match![2] ?? 8 * range.length), 8 * range.length);
  for (let bit = 0; bit < bits; bit += 8) {
    const mask = bits - bit >= 8 ? 0xff : 0xff & (0xff << (8 - (bits - bit)));
    if (((range[bit / 8]! ^ address[bit / 8]!) & mask) !== 0) return false;
  }
  return true;
}

const MAX_HEAD_BYTES = 16 * 1024;
