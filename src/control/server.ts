/**
 * The daemon's end of the local API: HTTP over a unix socket that only the daemon's own user may open, or on a machine
 * that has the groups of access.ts, over one that asks the kernel who is calling.
 *
 * Whatever arrives, the daemon goes on: a request is limited in size and time, connections are limited in number, and a
 * failure becomes an answer. A socket left by a dead daemon is replaced; one that somebody answers at is left alone.
 */
import { once } from "node:events";
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import { connect, type Socket } from "node:net";
import { dirname } from "node:path";
import type { Duplex } from "node:stream";
import { isMainThread } from "node:worker_threads";
import { PilotError } from "../base/pilot-error.ts";
import { type AccessRules, checkAccess } from "./access.ts";
import { type ControlBackend, type ErrorReply, httpStatusOf, SCHEMA } from "./api.ts";
import { type Caller, onBehalfOf } from "./caller.ts";
import { type PreparedCall, prepareCall } from "./requests.ts";
import { type CarryRequest, parseCarryRequest, RUN_PROTOCOL } from "./run-api.ts";
import { jsonInTurns } from "./turns.ts";

export interface ControlServerOptions {
  /** Called with what a backend threw that is not a PilotError: a bug to log. The caller is told no detail. */
  readonly onInternalError?: (method: string, error: unknown) => void;
  /** Who is at the other end. */
  readonly identify?: (socket: Socket) => Caller | undefined;
  /** Who may call what; without it only the daemon's own user can connect. */
  readonly access?: AccessRules;
  /** Takes over a connection that is to carry packets, which it was allowed; throws a PilotError to refuse it. */
  readonly carry?: (request: CarryRequest, socket: Socket, caller: Caller | undefined) => void;
  /** In place of the method's own deadline; for tests. */
  readonly deadlineMs?: number;
}

export interface ControlServer {
  readonly path: string;
  /** Ends running calls and removes the socket. The same promise each time. */
  close(): Promise<void>;
}

/** Throws PilotError `already_running`, `not_privileged` or `control_socket`. */
export async function startControlServer(
  path: string,
  backend: ControlBackend,
  options: ControlServerOptions = {},
): Promise<ControlServer> {
  const running = new Set<AbortController>();
  const carried = new Set<Socket>();
  const server = createHttpServer({ backend, options, running, carried });
  await listenPrivately(server, path);
  // Whoever can connect is asked who it is before anything is answered.
  if (isShared(options.access)) chmodSync(path, 0o666);
  let closed: Promise<void> | undefined;
  return {
    path,
    close: () => {
      for (const call of running) call.abort();
      for (const socket of carried) socket.destroy();
      closed ??= closeServer(server);
      return closed;
    },
  };
}

function isShared(access: AccessRules | undefined): boolean {
  return access?.readers !== undefined || access?.changers !== undefined;
}

/** Listens where only this user may connect. Throws PilotError `already_running`, `not_privileged` or `control_socket`. */
export async function listenPrivately(server: Server, path: string): Promise<void> {
  checkPath(path);
  makeDirectory(path);
  await removeStaleSocket(path);
  await listen(server, path);
}

// ---- the socket ---------------------------------------------------------------------------------------------------

/** `sun_path` holds 108 bytes with its end mark (unix(7)); a longer path would be cut short without a word. */
const MAX_PATH_BYTES = 107;

function checkPath(path: string): void {
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return;
  throw new PilotError(
    "control_socket",
    `The control socket's path is longer than ${MAX_PATH_BYTES} bytes: ${path}`,
    "Choose a shorter path with --control.",
  );
}

function makeDirectory(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  } catch (error) {
    throw socketError(error, path, `Cannot make the directory of ${path}`);
  }
}

async function removeStaleSocket(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) {
    throw new PilotError(
      "control_socket",
      `${path} is not a socket`,
      "Move it away, or name another path with --control.",
    );
  }
  const failure = await connectFailure(path);
  if (failure === undefined) throw alreadyRunning(path);
  if (failure === "ENOENT") return;
  // Anything but "nobody listens" (a full backlog, no permission) may be a daemon that lives.
  if (failure !== "ECONNREFUSED") throw failure === "EAGAIN" ? alreadyRunning(path) : noAccess(path);
  unlinkSync(path);
}

/** The code of the error that connecting gives; undefined when somebody answers. */
function connectFailure(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "UNKNOWN"));
  });
}

async function listen(server: Server, path: string): Promise<void> {
  // Nobody else may connect in the moment between bind and chmod. A worker thread cannot set the mask.
  const mask = isMainThread ? process.umask(0o177) : undefined;
  try {
    server.listen(path);
  } finally {
    if (mask !== undefined) process.umask(mask);
  }
  try {
    await once(server, "listening");
    chmodSync(path, 0o600);
  } catch (error) {
    server.close();
    throw socketError(error, path, `Cannot listen at ${path}`);
  }
}

async function closeServer(server: Server): Promise<void> {
  const closed = once(server, "close");
  server.close(); // also removes the socket file
  server.closeAllConnections();
  await closed;
}

function socketError(error: unknown, path: string, message: string): PilotError {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "EACCES" || code === "EPERM") return noAccess(path, error);
  if (code === "EADDRINUSE") return alreadyRunning(path, error);
  return new PilotError("control_socket", `${message}: ${code ?? error}`, "Name another path with --control.", error);
}

function alreadyRunning(path: string, cause?: unknown): PilotError {
  return new PilotError(
    "already_running",
    `A daemon already answers at ${path}`,
    "End that one first, or give this one its own --control, --state and --tun.",
    cause,
  );
}

const NO_ACCESS_HINT = "Run it as root, or name with --control a place where the daemon's user may make a socket.";

function noAccess(path: string, cause?: unknown): PilotError {
  return new PilotError("not_privileged", `No permission for ${path}`, NO_ACCESS_HINT, cause);
}

// ---- requests -----------------------------------------------------------------------------------------------------

const MAX_REQUEST_BYTES = 64 * 1024;
const MAX_HEADER_BYTES = 8 * 1024;
const MAX_CONNECTIONS = 64;
/** For the whole request to arrive: local programs send it at once. */
const REQUEST_ARRIVAL_MS = 10_000;

interface Conversation {
  readonly backend: ControlBackend;
  readonly options: ControlServerOptions;
  /** Requests not answered yet. Bound: MAX_CONNECTIONS. Each leaves when it is answered or given up. */
  readonly running: Set<AbortController>;
  /** Connections that carry packets. Bound: MAX_CONNECTIONS. Each leaves when it is closed. */
  readonly carried: Set<Socket>;
}

function createHttpServer(conversation: Conversation): Server {
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: REQUEST_ARRIVAL_MS / 2,
      requestTimeout: REQUEST_ARRIVAL_MS,
      connectionsCheckingInterval: 1000,
      keepAliveTimeout: 5000,
    },
    (request, response) => {
      // `answer` catches what the request can cause; what is left is a broken connection, which has no one to tell.
      answer(conversation, request, response).catch(() => request.destroy());
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.unshift(head); // what came with the request is the beginning of what follows it
    upgrade(conversation, request, socket as Socket);
  });
  server.on("clientError", (_error: Error, socket: Duplex) => refuseGarbage(socket));
  return server;
}

async function answer(conversation: Conversation, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { options, running } = conversation;
  const ended = new AbortController();
  running.add(ended);
  response.once("close", () => ended.abort());
  let method = "";
  try {
    method = methodOf(request);
    const call = prepareCall(method, parseJson(await readBody(request)));
    const { access } = options;
    const caller = access && options.identify?.(request.socket);
    if (access !== undefined) checkAccess(call.method, caller, access);
    const act = () => runCall(conversation, call, ended.signal);
    const reply = await onBehalfOf(() => caller ?? options.identify?.(request.socket), act);
    send(response, 200, await jsonInTurns({ schema: SCHEMA, ...reply }));
  } catch (error) {
    if (ended.signal.aborted) return; // nobody waits for it any more
    if (!(error instanceof PilotError)) options.onInternalError?.(method, error);
    refuse(response, error instanceof PilotError ? error : internalError());
  } finally {
    running.delete(ended);
    ended.abort(); // also after the deadline: the backend stops working on it
  }
}

async function runCall(conversation: Conversation, call: PreparedCall, signal: AbortSignal): Promise<object> {
  const deadlineMs = conversation.options.deadlineMs ?? call.deadlineMs;
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(tooLate(call.method, deadlineMs)), deadlineMs);
  });
  try {
    return await Promise.race([call.invoke(conversation.backend, signal), expired]);
  } finally {
    clearTimeout(timer);
  }
}

function tooLate(method: string, deadlineMs: number): PilotError {
  return new PilotError(
    "timeout",
    `${method} took longer than ${deadlineMs / 1000} s`,
    "Try again, and see `pilot-tun status`.",
  );
}

function methodOf(request: IncomingMessage): string {
  const path = (request.url ?? "").split("?", 1)[0]!;
  if (!path.startsWith("/v1/")) {
    throw new PilotError("unknown_method", "Methods are at /v1/<method>", "For example POST /v1/status.");
  }
  if (request.method !== "POST") {
    throw new PilotError("wrong_http_method", "Methods are called with POST", "For example curl -X POST.");
  }
  return path.slice("/v1/".length);
}

async function readBody(request: IncomingMessage): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_REQUEST_BYTES) {
      throw new PilotError("request_too_large", `A request has at most ${MAX_REQUEST_BYTES} bytes`, "Send less.");
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function parseJson(body: Uint8Array): unknown {
  if (body.length === 0) return {};
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new PilotError("bad_request", "The body is not JSON in UTF-8", "Send one JSON object.");
  }
}

function refuse(response: ServerResponse, error: PilotError): void {
  const reply: ErrorReply = {
    schema: SCHEMA,
    error: { code: error.code, message: error.message, hint: error.hint },
  };
  send(response, httpStatusOf(error.code), [Buffer.from(JSON.stringify(reply))]);
}

function send(response: ServerResponse, status: number, pieces: readonly Buffer[]): void {
  if (response.destroyed || response.headersSent) return;
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": pieces.reduce((sum, piece) => sum + piece.length, 1),
    // What is left of a refused request must not be read as the next one.
    ...(status === 200 ? {} : { connection: "close" }),
  });
  for (const piece of pieces) response.write(piece);
  response.end("\n");
}

function internalError(): PilotError {
  return new PilotError("internal", "The daemon met an unexpected error", "Look at the daemon's log.");
}

/** A connection that becomes one for packets, if who made it may change this daemon. */
function upgrade({ options, carried }: Conversation, request: IncomingMessage, socket: Socket): void {
  socket.on("error", () => socket.destroy());
  try {
    if (options.carry === undefined || request.headers.upgrade !== RUN_PROTOCOL) {
      throw new PilotError("bad_request", "This daemon has no such protocol", `The only one is ${RUN_PROTOCOL}.`);
    }
    const caller = options.identify?.(socket);
    if (options.access !== undefined) checkAccess("run", caller, options.access);
    options.carry(parseCarryRequest(request.url ?? ""), socket, caller);
  } catch (error) {
    if (!(error instanceof PilotError)) options.onInternalError?.("run", error);
    return refuseConnection(socket, error instanceof PilotError ? error : internalError());
  }
  carried.add(socket);
  socket.once("close", () => carried.delete(socket));
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ${RUN_PROTOCOL}\r\n\r\n`);
}

/** Bytes that are not HTTP: one answer if it can still be written, then the connection ends. */
function refuseGarbage(socket: Duplex): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const [message, hint] = ["This is not an HTTP request", "Send POST /v1/<method>."];
  refuseConnection(socket, new PilotError("bad_request", message, hint));
}

/** The last that is said on a connection. */
function refuseConnection(socket: Duplex, { code, message, hint }: PilotError): void {
  const text = JSON.stringify({ schema: SCHEMA, error: { code, message, hint } } satisfies ErrorReply) + "\n";
  const status = httpStatusOf(code);
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nconnection: close\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    () => socket.destroy(),
  );
}
