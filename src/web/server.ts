/**
 * The status page's server: a program without privileges beside the daemon, which it asks over the control socket with the
 * rights of whoever started it. It listens on loopback only.
 *
 *   GET  /, /web/page/…            the page; needs no token and tells nothing
 *   GET  /api/live                 a stream of server-sent events: `hello` once, then a `view` at each look (view.ts)
 *   POST /api/approve, /api/deny   a waiting request, as it was shown; needs the token for changes
 *
 * A refusal is JSON like that of the control socket. Requests, connections, streams and what waits in them are bounded.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { PilotError } from "../base/pilot-error.ts";
import { type ErrorReply, httpStatusOf, SCHEMA } from "../control/api.ts";
import { ControlClient } from "../control/client.ts";
import { VERSION } from "../control/version.ts";
import { answerRequest } from "./answers.ts";
import { DaemonWatch } from "./daemon-watch.ts";
import { checkHost, checkMayChange, checkOrigin, roleOf, type Tokens } from "./guard.ts";
import { type PageFile, readPageFiles } from "./page-files.ts";
import type { Hello, Role, View } from "./view.ts";

export interface WebOptions {
  /** Loopback. */
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  /** The daemon's. */
  readonly control: string;
  readonly tokens: Tokens;
}

export interface WebServer {
  /** `http://127.0.0.1:9587/`. */
  readonly url: string;
  close(): Promise<void>;
}

/** Throws PilotError `web_unavailable`. */
export async function startWebServer(options: WebOptions): Promise<WebServer> {
  const client = new ControlClient(options.control);
  const watch = new DaemonWatch(client);
  const conversation: Conversation = {
    files: readPageFiles(),
    tokens: options.tokens,
    client,
    watch,
    streams: new Set(),
  };
  const server = createHttpServer(conversation);
  const port = await listen(server, options);
  const watching = watch.run();
  return {
    url: `http://${options.host.includes(":") ? `[${options.host}]` : options.host}:${port}/`,
    close: async () => {
      watch.close();
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await Promise.all([closed, watching]);
    },
  };
}

async function listen(server: Server, { host, port }: WebOptions): Promise<number> {
  try {
    server.listen({ host, port });
    await once(server, "listening");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    const reason = code === "EADDRINUSE" ? "the port is taken" : code;
    const hint = "Choose another address of loopback with --listen, for example --listen 127.0.0.1:9600.";
    throw new PilotError("web_unavailable", `Cannot listen at ${host} port ${port}: ${reason}`, hint, error);
  }
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : port;
}

interface Conversation {
  readonly files: ReadonlyMap<string, PageFile>;
  readonly tokens: Tokens;
  readonly client: ControlClient;
  readonly watch: DaemonWatch;
  /** Bound: MAX_STREAMS. Each leaves when its connection ends. */
  readonly streams: Set<ServerResponse>;
}

function createHttpServer(conversation: Conversation): Server {
  const limits = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: REQUEST_ARRIVAL_MS / 2,
    requestTimeout: REQUEST_ARRIVAL_MS,
    connectionsCheckingInterval: 1_000,
    keepAliveTimeout: 5_000,
  };
  const server = createServer(limits, (request, response) => {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    answer(conversation, request, response).catch((error: unknown) => refuse(response, error));
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.on("clientError", (_error, socket) => {
    if (!socket.writable) return void socket.destroy();
    socket.end("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", () => socket.destroy());
  });
  return server;
}

/** With every answer. Scripts, styles and images are the page's own files; nothing may be inline, evaluated or framed. */
const HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "cache-control": "no-store",
};

async function answer(conversation: Conversation, request: IncomingMessage, response: ServerResponse): Promise<void> {
  checkHost(request.headers);
  const path = request.url ?? "";
  const file = conversation.files.get(path);
  if (file !== undefined) return sendFile(request, response, file);
  const endpoint = ENDPOINTS.get(path);
  if (endpoint === undefined) {
    throw new PilotError("unknown_page", "There is nothing at this path", "Open the address that pilot-tun web gave.");
  }
  checkMethod(request, response, [endpoint.method]);
  checkOrigin(request.headers);
  await endpoint.act(conversation, request, response, roleOf(request.headers, conversation.tokens));
}

interface Endpoint {
  readonly method: string;
  act(conversation: Conversation, request: IncomingMessage, response: ServerResponse, role: Role): Promise<void> | void;
}

const ENDPOINTS: ReadonlyMap<string, Endpoint> = new Map<string, Endpoint>([
  ["/api/live", { method: "GET", act: stream }],
  ["/api/approve", { method: "POST", act: answering("trust/approve") }],
  ["/api/deny", { method: "POST", act: answering("trust/deny") }],
]);

function checkMethod({ method = "" }: IncomingMessage, response: ServerResponse, allowed: readonly string[]): void {
  if (allowed.includes(method)) return;
  const list = allowed.join(", ");
  response.setHeader("allow", list);
  throw new PilotError("wrong_http_method", `This path takes ${list}`, `Send ${list}.`);
}

function sendFile(request: IncomingMessage, response: ServerResponse, { type, content }: PageFile): void {
  checkMethod(request, response, ["GET", "HEAD"]);
  response.writeHead(200, { "content-type": type, "content-length": content.length });
  response.end(request.method === "HEAD" ? undefined : content);
}

// ---- the stream ---------------------------------------------------------------------------------------------------

function stream(
  { watch, streams }: Conversation,
  _request: IncomingMessage,
  response: ServerResponse,
  role: Role,
): void {
  if (streams.size >= MAX_STREAMS) {
    throw new PilotError("busy", `${MAX_STREAMS} pages are open already`, "Close one of them.");
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (event: string, data: Hello | View): void => {
    // Who reads too slowly misses views; each of them is whole.
    if (!response.writableNeedDrain) response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  };
  streams.add(response);
  send("hello", { role, version: VERSION, history: watch.history() });
  const unsubscribe = watch.subscribe((view) => send("view", view));
  // A daemon may take its time; the page is to know that its server has not gone.
  const pulse = setInterval(() => response.writableNeedDrain || response.write(":\n\n"), PULSE_MS);
  response.once("close", () => {
    clearInterval(pulse);
    unsubscribe();
    streams.delete(response);
  });
}

// ---- answers to requests ------------------------------------------------------------------------------------------

function answering(method: "trust/approve" | "trust/deny"): Endpoint["act"] {
  return async ({ client, watch, tokens }, request, response, role) => {
    checkMayChange(role, tokens);
    const reply = await answerRequest(client, method, await readJson(request));
    watch.lookSoon();
    sendJson(response, 200, { schema: SCHEMA, ...reply });
  };
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  if (request.headers["content-type"] !== "application/json") {
    throw new PilotError("bad_request", "The body must be application/json", "Say so in content-type.");
  }
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) {
      throw new PilotError("request_too_large", `A request has at most ${MAX_BODY_BYTES} bytes`, "Send less.");
    }
    chunks.push(chunk);
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks)));
  } catch {
    throw new PilotError("bad_request", "The body is not JSON in UTF-8", "Send one JSON object.");
  }
}

function refuse(response: ServerResponse, error: unknown): void {
  const { code, message, hint } =
    error instanceof PilotError
      ? error
      : new PilotError("internal", "The page's server met an unexpected error", "Report it as a bug of pilot-tun.");
  response.setHeader("connection", "close"); // what is left of the request must not be read as the next one
  sendJson(response, httpStatusOf(code), { schema: SCHEMA, error: { code, message, hint } } satisfies ErrorReply);
}

function sendJson(response: ServerResponse, status: number, reply: object): void {
  if (response.destroyed || response.headersSent) return void response.destroy();
  const text = `${JSON.stringify(reply)}\n`;
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

const PULSE_MS = 5_000;
const MAX_STREAMS = 16;
const MAX_CONNECTIONS = 64;
const MAX_HEADER_BYTES = 8 * 1024;
const MAX_BODY_BYTES = 16 * 1024;
/** For the whole request to arrive. */
const REQUEST_ARRIVAL_MS = 10_000;
