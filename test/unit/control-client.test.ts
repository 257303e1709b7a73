import { chmodSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PilotError } from "../../src/base/pilot-error.ts";
import { ControlClient } from "../../src/control/client.ts";
import { fakeBackend, STATUS, temporaryDirectory, withServer } from "../helpers/control-fixture.ts";

let directory: ReturnType<typeof temporaryDirectory>;
let path: string;

beforeEach(() => {
  directory = temporaryDirectory();
  path = join(directory.path, "control.sock");
});

afterEach(() => directory.remove());

async function failure(socketPath: string, timeoutMs = 2000, signal?: AbortSignal): Promise<PilotError> {
  const options = signal === undefined ? { timeoutMs } : { timeoutMs, signal };
  const thrown = await new ControlClient(socketPath).call("status", {}, options).catch((error: unknown) => error);
  if (thrown instanceof PilotError) return thrown;
  throw new Error(`expected a PilotError, not ${JSON.stringify(thrown)}`);
}

/** Runs `use` while `server` listens at `path`. */
async function listening<T>(server: Server, use: () => Promise<T>): Promise<T> {
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    return await use();
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Runs `use` as a user that no permission bit helps. */
async function unprivileged<T>(use: () => Promise<T>): Promise<T> {
  if (process.geteuid?.() !== 0) return await use();
  process.seteuid?.(65_534);
  try {
    return await use();
  } finally {
    process.seteuid?.(0);
  }
}

describe("the control client", () => {
  it("returns the reply with its schema", async () => {
    const reply = await withServer(fakeBackend(), (socket) =>
      new ControlClient(socket).call("status", {}, { timeoutMs: 2000 }),
    );
    expect(reply).toEqual({ schema: "pilot-tun/1", ...STATUS });
  });

  it("throws the daemon's own refusal", async () => {
    const backend = fakeBackend({
      status: async () => {
        throw new PilotError("not_trusted", "no address yet", "wait");
      },
    });
    const error = await withServer(backend, (socket) => failure(socket));
    expect([error.code, error.message, error.hint]).toEqual(["not_trusted", "no address yet", "wait"]);
  });

  it("says not_running without a socket, behind a file, and at the socket of nobody", async () => {
    expect((await failure(path)).code).toBe("not_running");
    writeFileSync(path, "");
    expect((await failure(path)).code).toBe("not_running");
    expect((await failure(join(path, "below"))).code).toBe("not_running");
    expect((await failure(path)).hint).toContain("pilot-tun up");
  });

  it("says not_privileged when it may not open the socket", async () => {
    await listening(createServer(), async () => {
      chmodSync(directory.path, 0o755);
      chmodSync(path, 0);
      expect((await unprivileged(() => failure(path))).code).toBe("not_privileged");
    });
  });

  it("says timeout when nobody answers in time", async () => {
    const silent = createServer((socket) => void setTimeout(() => socket.destroy(), 100));
    expect((await listening(silent, () => failure(path, 30))).code).toBe("timeout");
  });

  it("says interrupted when the caller gives up", async () => {
    const silent = createServer((socket) => void setTimeout(() => socket.destroy(), 100));
    expect((await listening(silent, () => failure(path, 2000, AbortSignal.timeout(20)))).code).toBe("interrupted");
  });

  it("says bad_reply when the answer is not of this API", async () => {
    for (const body of ["", "hello", "7", "null", '{"schema":"other/1"}', '{"error":{}}']) {
      const stranger = createHttpServer((_request, response) => void response.end(body));
      expect((await listening(stranger, () => failure(path))).code, body).toBe("bad_reply");
    }
    const hangsUp = createServer((socket) => socket.resume().end("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"));
    expect((await listening(hangsUp, () => failure(path))).code).toBe("bad_reply");
  });
});
