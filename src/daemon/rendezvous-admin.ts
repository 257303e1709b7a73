/**
 * A running rendezvous as its operator sees it: HTTP over a unix socket that only its own user may open, like the
 * control API of a node. `health` and `backup` answer with one JSON object, `metrics` with text for Prometheus:
 *   curl --unix-socket /var/lib/pilot-rendezvous/admin.sock http://rendezvous/metrics
 */
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { isAbsolute } from "node:path";
import { PilotError } from "../base/pilot-error.ts";
import { type Problem, SCHEMA } from "../control/api.ts";
import { listenPrivately } from "../control/server.ts";
import type { BackupFacts } from "../io/store-backup.ts";
import type { RendezvousHealth } from "./rendezvous-health.ts";

export interface AdminBackend {
  health(): Promise<RendezvousHealth>;
  metrics(): string;
  /** `file` is an absolute path. */
  backup(file: string): Promise<BackupFacts>;
}

export interface AdminServer {
  /** Waits for a backup that is being written. */
  close(): Promise<void>;
}

/** Throws PilotError `already_running`, `not_privileged` or `control_socket`. */
export async function startAdminServer(path: string, backend: AdminBackend): Promise<AdminServer> {
  const backups = new Backups(backend);
  const server = createServer({ requestTimeout: 10_000, keepAliveTimeout: 1000 }, (request, response) => {
    answer(request, response, backend, backups).catch((error) => send(response, 500, errorBody(error)));
  });
  server.maxConnections = MAX_CONNECTIONS;
  await listenPrivately(server, path);
  return {
    close: async () => {
      await backups.settled();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

/** One at a time: each stops the log from being emptied while it lasts. */
class Backups {
  readonly #backend: AdminBackend;
  #running: Promise<unknown> | undefined;

  constructor(backend: AdminBackend) {
    this.#backend = backend;
  }

  async run(file: string): Promise<BackupFacts> {
    if (this.#running !== undefined) {
      throw new PilotError("busy", "Another backup is being written", "Wait until it is done.");
    }
    const backup = this.#backend.backup(file);
    this.#running = backup;
    try {
      return await backup;
    } finally {
      this.#running = undefined;
    }
  }

  async settled(): Promise<void> {
    await this.#running?.catch(() => {});
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  backend: AdminBackend,
  backups: Backups,
): Promise<void> {
  switch (`${request.method} ${request.url}`) {
    case "GET /v1/health":
    case "POST /v1/health": {
      const health = await backend.health();
      return send(response, health.healthy ? 200 : 503, { schema: SCHEMA, ...health });
    }
    case "GET /metrics":
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(backend.metrics());
      return;
    case "POST /v1/backup":
      return send(response, 200, { schema: SCHEMA, ...(await backups.run(await backupFile(request))) });
    default: {
      const hint = "There are GET /metrics, GET /v1/health and POST /v1/backup.";
      send(response, 404, errorBody(new PilotError("unknown_method", "No such method", hint)));
    }
  }
}

async function backupFile(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request as AsyncIterable<Buffer>) {
    text += chunk.toString("utf8");
    if (text.length > MAX_REQUEST_CHARS) break;
  }
  const file = (parseObject(text)["file"] ?? "") as unknown;
  if (typeof file === "string" && isAbsolute(file) && !file.includes("\0")) return file;
  throw new PilotError("bad_request", "`file` must be an absolute path", 'Send {"file": "/path/to/backup.db"}.');
}

function send(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent) return;
  response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(body)}\n`);
}

function errorBody(error: unknown): object {
  if (error instanceof PilotError) {
    return { schema: SCHEMA, error: { code: error.code, message: error.message, hint: error.hint } };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { schema: SCHEMA, error: { code: "internal", message, hint: "This is a bug of pilot-tun: report it." } };
}

// ---- the caller's end ---------------------------------------------------------------------------------------------

/** Asks a running rendezvous. Throws the PilotError that it answered with, `not_running` or `not_privileged`. */
export async function askAdmin(path: string, method: "GET" | "POST", url: string, body: object = {}): Promise<string> {
  const text = await exchange(path, method, url, JSON.stringify(body)).catch((error) => {
    throw connectionError(path, error);
  });
  const problem = parseObject(text)["error"] as Problem | undefined;
  if (problem !== undefined) throw new PilotError(problem.code, problem.message, problem.hint);
  return text;
}

function exchange(path: string, method: string, url: string, body: string): Promise<string> {
  const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
  return new Promise((resolve, reject) => {
    const call = httpRequest({ socketPath: path, path: url, method, agent: false, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
      response.on("error", reject);
    });
    call.once("error", reject);
    call.end(body);
  });
}

function connectionError(path: string, error: NodeJS.ErrnoException): PilotError {
  if (error.code === "EACCES" || error.code === "EPERM") {
    const hint = "Run the command as the user that runs the rendezvous.";
    return new PilotError("not_privileged", `No permission for ${path}`, hint, error);
  }
  const hint = "Start one with `pilot-tun rendezvous`, or name its socket with --admin.";
  return new PilotError("not_running", `No rendezvous answers at ${path}`, hint, error);
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {}; // a syntax error is all that parsing throws
  }
}

const MAX_CONNECTIONS = 16;
const MAX_REQUEST_CHARS = 16 * 1024;
