/**
 * A program's end of the local API: one call, one connection, one answer. Every failure is a PilotError whose code is
 * in the API's table: what the daemon refused, or `not_running`, `not_privileged`, `timeout`, `bad_reply`.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { PilotError } from "../base/pilot-error.ts";
import { type ControlMethod, type Problem, type ReplyOf, type RequestOf, SCHEMA, type Sealed } from "./api.ts";

export interface CallOptions {
  /** For the whole call. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export class ControlClient {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async call<M extends ControlMethod>(
    method: M,
    request: RequestOf<M>,
    options: CallOptions,
  ): Promise<Sealed<ReplyOf<M>>> {
    const deadline = AbortSignal.timeout(options.timeoutMs);
    const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
    try {
      return checkReply(await exchange(this.#path, method, JSON.stringify(request), signal)) as Sealed<ReplyOf<M>>;
    } catch (error) {
      if (error instanceof PilotError) throw error;
      if (deadline.aborted) throw timedOut(options.timeoutMs, error);
      throw this.#connectionError(error);
    }
  }

  #connectionError(error: unknown): PilotError {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (NOBODY_THERE.has(code)) {
      return new PilotError(
        "not_running",
        `No daemon answers at ${this.#path}`,
        "Start one with `pilot-tun up`, or name its socket with --control.",
        error,
      );
    }
    if (code === "EACCES" || code === "EPERM") {
      return new PilotError(
        "not_privileged",
        `No permission for ${this.#path}`,
        "Run the command as root, or as the user that runs the daemon.",
        error,
      );
    }
    if (code === "ABORT_ERR") return new PilotError("interrupted", "Interrupted", "Run the command again.", error);
    return badReply(`The connection to ${this.#path} broke (${code || error})`, error);
  }
}

const NOBODY_THERE: ReadonlySet<string> = new Set(["ENOENT", "ECONNREFUSED", "ENOTDIR"]);

/** A table of 65,536 peers is about 20 MB. */
const MAX_REPLY_BYTES = 32 * 1024 * 1024;

function exchange(path: string, method: ControlMethod, body: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const call = httpRequest(
      {
        socketPath: path,
        path: `/v1/${method}`,
        method: "POST",
        agent: false,
        headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) },
        signal,
      },
      (response) => readText(response).then(resolve, reject),
    );
    call.once("error", reject);
    call.end(body);
  });
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_REPLY_BYTES) throw badReply("The answer is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The reply; throws the error that the daemon answered with. */
function checkReply(text: string): object {
  const reply = parseObject(text);
  if (reply === undefined || reply.schema !== SCHEMA) {
    throw badReply(`The answer is not of the schema ${SCHEMA}`);
  }
  const problem = reply.error as Problem | undefined;
  if (problem !== undefined) throw new PilotError(problem.code, problem.message, problem.hint);
  return reply;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined; // a syntax error is all that parsing throws
  }
}

function timedOut(timeoutMs: number, cause: unknown): PilotError {
  return new PilotError(
    "timeout",
    `The daemon did not answer within ${timeoutMs / 1000} s`,
    "Wait longer with --timeout, or look at the daemon's log.",
    cause,
  );
}

function badReply(message: string, cause?: unknown): PilotError {
  return new PilotError("bad_reply", message, "Check that --control names a pilot-tun socket of this version.", cause);
}
