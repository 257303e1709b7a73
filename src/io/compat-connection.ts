/**
 * A node's side of the beacon over a WebSocket (pilot protocol §5, compat transport): TLS, through a proxy if the
 * environment names one, the proof of the node's key, then beacon datagrams both ways. What cannot be sent at once is
 * dropped beyond a bound, so that delay does not grow; the frames' own protocols repeat what matters.
 */
import type { Socket } from "node:net";
import { checkServerIdentity, type TLSSocket, connect as tlsConnect } from "node:tls";
import { type RawData, WebSocket } from "ws";
import { fromUtf8, utf8 } from "../base/bytes.ts";
import type { Crypto } from "../base/crypto.ts";
import {
  compatSignedText,
  encodeCompatReply,
  isCompatOk,
  MAX_COMPAT_DATAGRAM_BYTES,
  parseCompatChallenge,
} from "../wire/compat.ts";
import type { NodeId } from "../wire/ids.ts";
import { parseIp } from "../wire/underlay-address.ts";
import { connectThrough, type HostPort, opened, type ProxyEnvironment, proxyFor } from "./https-proxy.ts";
import { fingerprintOf, trustedAuthorities } from "./tls-certificate.ts";

export interface CompatTarget extends HostPort {
  /** `/v1/compat`. */
  readonly path: string;
  /** SHA-256 of the certificate in lower-case hex; undefined: the system's certificate authorities decide. */
  readonly fingerprint: string | undefined;
}

export interface CompatIdentity {
  readonly node: NodeId;
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
}

export interface CompatHooks {
  handleDatagram(datagram: Uint8Array): void;
  /** Once, after it was open: `reason` for people. */
  handleClose(reason: string): void;
}

export class CompatConnection {
  readonly #webSocket: WebSocket;
  readonly #pings: NodeJS.Timeout;
  #heard = true;
  /** Datagrams that were not sent because too much waited. */
  dropped = 0;

  /** Resolves when the beacon has accepted the key; rejects with a reason for people. */
  static async open(
    target: CompatTarget,
    identity: CompatIdentity,
    crypto: Crypto,
    environment: ProxyEnvironment,
    hooks: CompatHooks,
    signal: AbortSignal,
  ): Promise<CompatConnection> {
    const { webSocket, nonce } = await openCompat(target, environment, signal);
    const signature = crypto.ed25519Sign(identity.seed, utf8(compatSignedText(identity.node, nonce)));
    webSocket.send(encodeCompatReply({ node: identity.node, publicKey: identity.publicKey, signature }));
    const answer = await nextText(webSocket, signal);
    if (isCompatOk(answer)) return new CompatConnection(webSocket, hooks);
    webSocket.terminate();
    throw new Error("the beacon did not accept this node's key");
  }

  private constructor(webSocket: WebSocket, hooks: CompatHooks) {
    this.#webSocket = webSocket;
    this.#pings = setInterval(() => this.#ping(), PING_MS);
    webSocket.on("message", (data, isBinary) => {
      this.#heard = true;
      if (isBinary) hooks.handleDatagram(bytesOf(data));
    });
    webSocket.on("ping", () => {
      this.#heard = true;
    });
    webSocket.on("pong", () => {
      this.#heard = true;
    });
    webSocket.once("close", (code) => {
      clearInterval(this.#pings);
      hooks.handleClose(code === ABNORMAL_CLOSE ? "the connection broke" : `the beacon closed it (${code})`);
    });
  }

  send(datagram: Uint8Array): void {
    if (this.#webSocket.readyState !== WebSocket.OPEN || this.#webSocket.bufferedAmount > MAX_UNSENT_BYTES) {
      this.dropped++;
      return;
    }
    this.#webSocket.send(datagram, { binary: true });
  }

  /** No hook is called after this. */
  close(): void {
    clearInterval(this.#pings);
    this.#webSocket.removeAllListeners();
    this.#webSocket.on("error", () => undefined);
    this.#webSocket.close(NORMAL_CLOSE);
    setTimeout(() => this.#webSocket.terminate(), CLOSE_MS).unref();
  }

  #ping(): void {
    if (!this.#heard) return this.#webSocket.terminate();
    this.#heard = false;
    this.#webSocket.ping();
  }
}

/** As far as a stranger gets: TLS, WebSocket and the challenge. How long that takes is the fallback's latency. */
export async function openCompat(
  target: CompatTarget,
  environment: ProxyEnvironment,
  signal: AbortSignal,
): Promise<{ readonly webSocket: WebSocket; readonly nonce: string }> {
  const tls = await openTls(target, environment, signal);
  const host = target.host.includes(":") ? `[${target.host}]` : target.host;
  const webSocket = new WebSocket(`wss://${host}:${target.port}${target.path}`, {
    createConnection: () => tls,
    perMessageDeflate: false,
    maxPayload: MAX_COMPAT_DATAGRAM_BYTES,
    handshakeTimeout: HANDSHAKE_MS,
  });
  webSocket.on("error", () => webSocket.terminate());
  const nonce = parseCompatChallenge(await nextText(webSocket, signal));
  if (nonce !== undefined) return { webSocket, nonce };
  webSocket.terminate();
  throw new Error("what answers there is no beacon");
}

async function openTls(target: CompatTarget, environment: ProxyEnvironment, signal: AbortSignal): Promise<TLSSocket> {
  const proxy = proxyFor(target, environment);
  if (typeof proxy === "string") throw new Error(proxy);
  const socket: Socket | undefined = proxy === undefined ? undefined : await connectThrough(proxy, target, signal);
  const { host, port, fingerprint } = target;
  const tls = tlsConnect({
    ...(socket === undefined ? { host, port } : { socket }),
    ...(parseIp(host) === undefined ? { servername: host } : {}),
    checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
    rejectUnauthorized: fingerprint === undefined,
    ...(fingerprint === undefined ? { ca: trustedAuthorities() } : {}),
    ALPNProtocols: ["http/1.1"],
  });
  tls.setNoDelay(true);
  await opened(tls, "secureConnect", signal);
  if (fingerprint === undefined) return tls;
  const certificate = tls.getPeerX509Certificate();
  if (certificate !== undefined && fingerprintOf(certificate) === fingerprint) return tls;
  tls.destroy();
  throw new Error("the certificate there is not the pinned one");
}

/** The next message, which must be text. */
function nextText(webSocket: WebSocket, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const end = (finish: () => void): void => {
      signal.removeEventListener("abort", abort);
      webSocket.off("message", message);
      webSocket.off("error", fail);
      webSocket.off("close", closed);
      finish();
    };
    const fail = (error: Error): void =>
      end(() => {
        webSocket.terminate();
        reject(error);
      });
    const abort = (): void => fail(new Error("it took too long"));
    const closed = (_code: number, reason: Uint8Array): void =>
      fail(
        new Error(reason.length > 0 ? `the beacon refused: ${fromUtf8(reason) ?? "?"}` : "the connection was closed"),
      );
    const message = (data: RawData, isBinary: boolean): void => {
      const text = isBinary ? undefined : fromUtf8(bytesOf(data));
      if (text === undefined) fail(new Error("what answers there is no beacon"));
      else end(() => resolve(text));
    };
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    webSocket.on("message", message);
    webSocket.once("error", fail);
    webSocket.once("close", closed);
  });
}

/** With the default binary type of `ws` a message is one Buffer. */
function bytesOf(data: RawData): Uint8Array {
  return data instanceof Uint8Array ? data : new Uint8Array(0);
}

/** Middleboxes forget idle connections after a minute or more; a dead one is found within two of these. */
const PING_MS = 20_000;
const HANDSHAKE_MS = 5_000;
const CLOSE_MS = 2_000;
const MAX_UNSENT_BYTES = 512 * 1024;
/** RFC 6455 §7.4.1. */
const NORMAL_CLOSE = 1000;
const ABNORMAL_CLOSE = 1006;
