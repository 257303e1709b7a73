import { linkSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ErrorCode } from "../../src/base/error-code.ts";
import { PilotError } from "../../src/base/pilot-error.ts";
import { type ControlBackend, ERROR_CLASSES } from "../../src/control/api.ts";
import { type Caller, currentCaller } from "../../src/control/caller.ts";
import { prepareCall } from "../../src/control/requests.ts";
import { RUN_PROTOCOL } from "../../src/control/run-api.ts";
import { type ControlServer, type ControlServerOptions, startControlServer } from "../../src/control/server.ts";
import { BOB, fakeBackend, fakeTrust, STATUS, temporaryDirectory } from "../helpers/control-fixture.ts";

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

let directory: ReturnType<typeof temporaryDirectory>;
let path: string;
const servers: ControlServer[] = [];

beforeEach(() => {
  directory = temporaryDirectory();
  path = join(directory.path, "control.sock");
});

afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
  directory.remove();
});

async function start(
  replace: Partial<ControlBackend> = {},
  more: Partial<ControlServerOptions> = {},
): Promise<ControlServer> {
  const server = await startControlServer(path, fakeBackend(replace), more);
  servers.push(server);
  return server;
}

function post(url: string, body: string | Uint8Array, httpMethod = "POST"): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath: path, path: url, method: httpMethod, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
      response.on("error", reject);
    });
    call.on("error", reject);
    call.end(body);
  });
}

/** Writes bytes to the socket and returns what comes back until the other side closes. */
function raw(bytes: string | Uint8Array, options: { end: boolean }): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect(path, () => (options.end ? socket.end(bytes) : socket.write(bytes)));
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      text += chunk;
    });
    socket.on("error", () => undefined); // a reset is an answer too: `close` follows
    socket.on("close", () => resolve(text));
  });
}

function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

function errorOf(answer: Answer): { code: string; message: string; hint: string } {
  return answer.body.error as { code: string; message: string; hint: string };
}

async function codeOf(failing: Promise<unknown>): Promise<string> {
  const error = await failing.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return error instanceof PilotError ? error.code : `not a PilotError: ${error}`;
}

describe("the control socket", () => {
  it("is made with its directory and only its owner may open it", async () => {
    path = join(directory.path, "run", "control.sock");
    await start();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect((await post("/v1/status", "")).status).toBe(200);
  });

  it("of a dead daemon is replaced", async () => {
    const dead = createServer().listen(join(directory.path, "dead.sock"));
    await new Promise((resolve) => dead.once("listening", resolve));
    linkSync(join(directory.path, "dead.sock"), path);
    await new Promise((resolve) => dead.close(resolve));
    expect(statSync(path).isSocket()).toBe(true);
    await start();
    expect((await post("/v1/status", "{}")).status).toBe(200);
  });

  it("of a living daemon is left alone", async () => {
    await start();
    expect(await codeOf(startControlServer(path, fakeBackend()))).toBe("already_running");
    expect((await post("/v1/status", "{}")).status).toBe(200);
  });

  it("is not put in the place of a file", async () => {
    writeFileSync(path, "precious");
    expect(await codeOf(startControlServer(path, fakeBackend()))).toBe("control_socket");
    expect(readFileSync(path, "utf8")).toBe("precious");
  });

  it("is refused when its path would be cut short, or its directory cannot be made", async () => {
    const long = join(directory.path, "x".repeat(120));
    expect(await codeOf(startControlServer(long, fakeBackend()))).toBe("control_socket");
    writeFileSync(join(directory.path, "file"), "");
    const below = join(directory.path, "file", "control.sock");
    expect(await codeOf(startControlServer(below, fakeBackend()))).toBe("control_socket");
  });

  it("goes away at close, which may be called again and ends running calls", async () => {
    let ended = false;
    const server = await start({
      status: (_request, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            ended = true;
            reject(new Error("aborted"));
          });
        }),
    });
    const running = post("/v1/status", "{}").catch(() => "broken");
    await sleep(30);
    const closed = server.close();
    expect(server.close()).toBe(closed);
    await closed;
    expect(await running).toBe("broken");
    expect(ended).toBe(true);
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });
});

describe("a request", () => {
  it("is answered with the backend's reply and the schema", async () => {
    await start();
    const answer = await post("/v1/status", "");
    expect(answer).toEqual({ status: 200, body: { schema: "pilot-tun/1", ...STATUS } });
  });

  it("is worked on in its caller's name, also behind a wait, and nobody is looked up for nothing", async () => {
    const caller: Caller = { pid: 1, uid: 2, gids: [3], user: "ann", program: "node", login: null };
    let lookedUp = 0;
    let seen: Caller | undefined;
    const addr = async () => {
      await sleep(1);
      seen = currentCaller();
      return { ...BOB, self: currentCaller() !== seen };
    };
    const identify = () => {
      lookedUp++;
      return caller;
    };
    await start({ addr }, { identify });
    await post("/v1/status", "{}");
    expect(lookedUp).toBe(0);
    await post("/v1/addr", "{}");
    expect([seen, lookedUp]).toEqual([caller, 1]);
    expect(currentCaller()).toBeUndefined();
  });

  it("reaches the backend's method as it was sent", async () => {
    const seen: unknown[] = [];
    await start({
      ping: async (asked) => {
        seen.push(asked);
        return { peer: BOB, replies: [], sent: 0, received: 0, path: "none" };
      },
      trust: fakeTrust({
        ask: async (asked) => {
          seen.push(asked);
          return { peer: BOB, trust: "asked", lease: null, waits: true, delivered: "direct" };
        },
      }),
    });
    await post("/v1/ping", '{"peer":"bob","count":2,"timeoutMs":500}');
    await post("/v1/trust/ask", '{"peer":"bob","reason":"für morgen"}');
    expect(seen).toEqual([
      { peer: "bob", count: 2, timeoutMs: 500 },
      { peer: "bob", reason: "für morgen" },
    ]);
  });

  it.each([
    ["/v1/nothing", "{}", "unknown_method"],
    ["/v1/__proto__", "{}", "unknown_method"],
    ["/", "{}", "unknown_method"],
    ["/v1/status", "[]", "bad_request"],
    ["/v1/status", "{", "bad_request"],
    ["/v1/status", '{"colour":1}', "bad_request"],
    ["/v1/ping", '{"peer":"b","count":0,"timeoutMs":1}', "bad_request"],
    ["/v1/ping", '{"peer":"b","count":101,"timeoutMs":1}', "bad_request"],
    ["/v1/ping", '{"peer":"b","count":1.5,"timeoutMs":1}', "bad_request"],
    ["/v1/ping", '{"peer":"b","count":1,"timeoutMs":60001}', "bad_request"],
    ["/v1/addr", '{"peer":""}', "bad_request"],
    ["/v1/addr", '{"peer":"a b"}', "bad_request"],
    ["/v1/addr", '{"peer":7}', "bad_request"],
    ["/v1/trust/revoke", "{}", "bad_request"],
    ["/v1/trust/ask", `{"peer":"b","reason":"${"x".repeat(513)}"}`, "bad_request"],
  ])("to %s with %s is refused", async (url, body, code) => {
    await start();
    const answer = await post(url, body);
    expect(errorOf(answer).code).toBe(code);
    expect(answer.status).toBe(ERROR_CLASSES[code as ErrorCode]!.status);
    expect(answer.body.schema).toBe("pilot-tun/1");
  });

  it("must be a POST", async () => {
    await start();
    const answer = await post("/v1/status", "", "GET");
    expect(answer.status).toBe(405);
    expect(errorOf(answer).code).toBe("wrong_http_method");
  });

  it("may not be larger than 64 KiB", async () => {
    await start();
    const answer = await post("/v1/status", " ".repeat(64 * 1024 + 1));
    expect(answer.status).toBe(413);
    expect((await post("/v1/status", "{}")).status).toBe(200);
  });

  it("that the backend refuses carries its code, message and hint", async () => {
    await start({
      addr: async () => {
        throw new PilotError("not_trusted", "bob is not trusted", "pilot-tun trust ask bob");
      },
    });
    const answer = await post("/v1/addr", '{"peer":"bob"}');
    expect(answer.status).toBe(403);
    expect(errorOf(answer)).toEqual({
      code: "not_trusted",
      message: "bob is not trusted",
      hint: "pilot-tun trust ask bob",
    });
  });

  it("that meets a bug tells the log and not the caller", async () => {
    const logged: unknown[] = [];
    const bug = new TypeError("secret detail");
    await start(
      {
        status: async () => {
          throw bug;
        },
      },
      { onInternalError: (method, error) => logged.push(method, error) },
    );
    const answer = await post("/v1/status", "{}");
    expect(answer.status).toBe(500);
    expect(JSON.stringify(answer.body)).not.toContain("secret");
    expect(logged).toEqual(["status", bug]);
  });

  it("that takes too long is ended", async () => {
    let aborted = false;
    await start(
      {
        status: (_request, signal) =>
          new Promise(() => {
            signal.addEventListener("abort", () => {
              aborted = true;
            });
          }),
      },
      { deadlineMs: 20 },
    );
    const answer = await post("/v1/status", "{}");
    expect(answer.status).toBe(504);
    expect(errorOf(answer).code).toBe("timeout");
    expect(aborted).toBe(true);
  });

  it("whose caller goes away is ended, and is no bug", async () => {
    const logged: unknown[] = [];
    const seen = withResolvers();
    const ended = withResolvers();
    await start(
      {
        status: (_request, signal) => {
          seen.resolve();
          return new Promise((_resolve, reject) => {
            signal.addEventListener("abort", () => {
              ended.resolve();
              reject(new Error("aborted"));
            });
          });
        },
      },
      { onInternalError: (method) => logged.push(method) },
    );
    const call = request({ socketPath: path, path: "/v1/status", method: "POST", agent: false });
    call.on("error", () => undefined); // it is broken off on purpose
    call.end("{}");
    await seen.promise;
    call.destroy();
    await ended.promise;
    await sleep(10);
    expect(logged).toEqual([]);
  });
});

describe("a connection that is to carry packets", () => {
  const upgrade = (path: string, protocol = RUN_PROTOCOL) =>
    `GET ${path} HTTP/1.1\r\nhost: pilot\r\nconnection: upgrade\r\nupgrade: ${protocol}\r\n\r\n`;
  const access = { ownUid: 1, readers: 60, changers: 61 };
  const caller = (gid: number): Caller => ({ pid: 7, uid: 1000, gids: [gid], user: null, program: null, login: null });
  const carry: ControlServerOptions["carry"] = ({ first, uid }, socket, from) => {
    socket.on("data", (bytes: Buffer) => socket.end(`${first} ${uid} ${from?.uid} heard ${bytes}`));
  };

  it("is handed over to whoever may change the daemon, and both ways are open", async () => {
    await start({}, { carry, access, identify: () => caller(61) });
    const reply = await raw(`${upgrade("/v1/run?first=65024&uid=9")}packet`, { end: false });
    expect(reply).toMatch(/^HTTP\/1\.1 101 /);
    expect(reply).toMatch(/65024 9 1000 heard packet$/);
  });

  it("is refused to others, for another protocol, and without a port", async () => {
    await start({}, { carry, access, identify: () => caller(60) });
    expect(await raw(upgrade("/v1/run?first=65024"), { end: false })).toMatch(/^HTTP\/1\.1 403 .*not_permitted/s);
    await servers.pop()!.close();
    await start({}, { carry, access, identify: () => caller(61) });
    for (const [path, protocol] of [
      ["/v1/run?first=65024", "websocket"],
      ["/v1/run", RUN_PROTOCOL],
      ["/v1/run?first=0", RUN_PROTOCOL],
      ["/v1/run?first=65536", RUN_PROTOCOL],
      ["/v1/run?first=1&uid=-1", RUN_PROTOCOL],
      ["/v1/status?first=1", RUN_PROTOCOL],
    ]) {
      expect(await raw(upgrade(path!, protocol), { end: false }), path).toMatch(/^HTTP\/1\.1 400 .*bad_request/s);
    }
  });

  it("does not keep the server from closing", async () => {
    const server = await start({}, { carry: () => {} });
    const ended = raw(upgrade("/v1/run?first=65024"), { end: false });
    await sleep(50);
    await server.close();
    expect(await ended).toMatch(/^HTTP\/1\.1 101 /);
  });
});

describe("whatever arrives at the socket", () => {
  it("random bytes never stop the server", async () => {
    await start();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 300 }), async (bytes) => {
        await raw(bytes, { end: true });
      }),
      { numRuns: 60 },
    );
    expect((await post("/v1/status", "{}")).status).toBe(200);
  });

  it.each([
    ["no HTTP", "\x16\x03\x01hello\r\n\r\n"],
    ["a header too large", `POST /v1/status HTTP/1.1\r\nx: ${"y".repeat(20_000)}\r\n\r\n`],
    ["a length that is no number", "POST /v1/status HTTP/1.1\r\ncontent-length: many\r\n\r\n"],
    ["two lengths", "POST /v1/status HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"],
  ])("%s is answered with an error and the connection ends", async (_what, bytes) => {
    await start();
    expect(await raw(bytes, { end: false })).toMatch(/^HTTP\/1\.1 400 .*"schema":"pilot-tun\/1"/s);
    expect((await post("/v1/status", "{}")).status).toBe(200);
  });

  it.each([
    ["POST /v1/status HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{"],
    ["POST /v1/status HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"],
    ["POST /v1/sta"],
  ])("a request cut short after %j leaves the server answering", async (bytes) => {
    const logged: unknown[] = [];
    await start({}, { onInternalError: (...all) => logged.push(all) });
    await raw(bytes, { end: true });
    expect((await post("/v1/status", "{}")).status).toBe(200);
    expect(logged).toEqual([]);
  });

  it("any JSON as a request is either checked or refused as bad_request", () => {
    const methods = ["status", "addr", "ping", "whois", "trust/ask", "trust/revoke"];
    fc.assert(
      fc.property(fc.constantFrom(...methods), fc.jsonValue(), (method, body) => {
        try {
          expect(prepareCall(method, body).deadlineMs).toBeGreaterThan(0);
        } catch (error) {
          expect((error as PilotError).code).toBe("bad_request");
        }
      }),
    );
  });

  it("a directory in the socket's place is refused", async () => {
    mkdirSync(path);
    expect(await codeOf(startControlServer(path, fakeBackend()))).toBe("control_socket");
  });
});
