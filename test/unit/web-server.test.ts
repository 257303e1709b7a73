/** The status page's server: who is answered, with what, and how much of it. A real control server is behind it. */
import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PilotError } from "../../src/base/pilot-error.ts";
import { type ControlServer, startControlServer } from "../../src/control/server.ts";
import type { TrustRequest } from "../../src/control/trust-api.ts";
import { startWebServer, type WebServer } from "../../src/web/server.ts";
import type { Hello, View } from "../../src/web/view.ts";
import { BOB, EVENTS, fakeBackend, fakeTrust, STATUS, temporaryDirectory } from "../helpers/control-fixture.ts";

const LOOK = "look".repeat(8);
const CHANGE = "chng".repeat(8);
const ASK: TrustRequest = {
  ...BOB,
  ...{ reason: "nightly backup", ports: ["tcp/443", "udp/53"], forS: 7_200, maxBytes: 50_000_000 },
  ...{ askedAgoS: 20, fingerprint: "SHA256:abc" },
};

let directory: { path: string; remove(): void };
let control: ControlServer;
let web: WebServer;
let asks: TrustRequest[];
let refusal: PilotError | undefined;
/** What the daemon was asked to change. */
let changes: { readonly method: string; readonly request: unknown }[];

const BACKEND = fakeBackend({
  trust: fakeTrust({
    pending: async () => ({ requests: asks }),
    approve: async (request) => changed("approve", request),
    deny: async (request) => changed("deny", request),
  }),
  status: async () => {
    if (refusal !== undefined) throw refusal;
    return STATUS;
  },
});

async function changed(method: string, request: unknown) {
  changes.push({ method, request });
  return { peer: BOB, trust: "mutual", lease: null } as const;
}

beforeEach(async () => {
  directory = temporaryDirectory();
  [asks, changes, refusal] = [[ASK], [], undefined];
  control = await startControlServer(`${directory.path}/control.sock`, BACKEND);
  web = await start(CHANGE);
});

afterEach(async () => {
  await web.close();
  await control.close();
  directory.remove();
});

function start(change: string | undefined): Promise<WebServer> {
  return startWebServer({ host: "127.0.0.1", port: 0, control: control.path, tokens: { look: LOOK, change } });
}

interface Sent {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly token?: string;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly text: string;
  /** Of a refusal. */
  readonly code: string | undefined;
}

async function send(path: string, { method = "GET", headers = {}, body = "", token }: Sent = {}): Promise<Answer> {
  const bearer = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const where = { host: "127.0.0.1", port: new URL(web.url).port, path, method, agent: false };
  const call = httpRequest({ ...where, headers: { ...bearer, ...headers } });
  call.end(method === "GET" ? undefined : body);
  const [response] = (await once(call, "response")) as [IncomingMessage];
  let text = "";
  for await (const part of response.setEncoding("utf8")) text += part;
  const isJson = response.headers["content-type"] === "application/json";
  const code = isJson ? (JSON.parse(text) as { error?: { code: string } }).error?.code : undefined;
  return { status: response.statusCode!, headers: response.headers, text, code };
}

const JSON_TYPE = { "content-type": "application/json" };
const shown = ({ node, fingerprint, reason, ports, forS, maxBytes }: TrustRequest) =>
  JSON.stringify({ node, fingerprint, reason, ports, forS, maxBytes });
const approve = (sent: Sent = {}): Promise<Answer> =>
  send("/api/approve", { method: "POST", headers: JSON_TYPE, body: shown(ASK), token: CHANGE, ...sent });

/** The first `count` messages of a stream; then it is left. */
async function live(count: number, token = LOOK): Promise<{ event: string; data: Hello | View }[]> {
  const call = httpRequest(new URL("/api/live", web.url), {
    agent: false,
    headers: { authorization: `Bearer ${token}` },
  });
  call.on("error", () => undefined);
  call.end();
  const [response] = (await once(call, "response")) as [IncomingMessage];
  expect(response.headers["content-type"]).toBe("text/event-stream");
  let text = "";
  for await (const part of response.setEncoding("utf8")) {
    text += part;
    if (text.split("\n\n").length > count) break;
  }
  call.destroy();
  return text
    .split("\n\n")
    .slice(0, count)
    .map((message) => {
      const [, event, data] = /^event: (\w+)\ndata: (.*)$/.exec(message)!;
      return { event: event!, data: JSON.parse(data!) };
    });
}

describe("every answer", () => {
  it("forbids all but the page's own files, frames, guessing of types and keeping", async () => {
    for (const path of ["/", "/web/page/main.js", "/web/page/page.css", "/nothing", "/api/live"]) {
      const { headers } = await send(path);
      const policy = String(headers["content-security-policy"]);
      expect(policy.split("; ")).toEqual(
        expect.arrayContaining([
          "default-src 'none'",
          "script-src 'self'",
          "style-src 'self'",
          "frame-ancestors 'none'",
        ]),
      );
      expect(policy).not.toMatch(/unsafe|\*|data:|https?:/);
      expect(headers).toMatchObject({
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "cross-origin-resource-policy": "same-origin",
      });
      expect(headers["set-cookie"]).toBeUndefined();
      expect(headers["access-control-allow-origin"]).toBeUndefined();
    }
  });

  it("to a name that is not loopback's is a refusal, so that no foreign name reads anything", async () => {
    for (const host of [
      "evil.example",
      "evil.example:9587",
      "127.0.0.1.evil.example",
      "localhost.evil.example",
      "192.0.2.1",
      "[::2]:1",
    ]) {
      for (const path of ["/", "/api/live", "/api/approve"]) {
        const { status, code } = await send(path, { headers: { host }, token: CHANGE });
        expect([host, path, status, code]).toEqual([host, path, 403, "wrong_host"]);
      }
    }
    for (const host of ["localhost:1234", "127.0.0.1", "[::1]:8080", "LOCALHOST"]) {
      expect((await send("/", { headers: { host } })).status).toBe(200);
    }
  });

  it("is a refusal for other methods and for paths that are no file of the page", async () => {
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
      expect(await send("/", { method })).toMatchObject({
        status: 405,
        code: "wrong_http_method",
        headers: { allow: "GET, HEAD" },
      });
    }
    expect(await send("/api/approve", { token: CHANGE })).toMatchObject({ status: 405, headers: { allow: "POST" } });
    for (const path of [
      "/package.json",
      "/web/page/",
      "/web/page/main.ts",
      "/web/server.js",
      "/%2e%2e/package.json",
      "//",
      "/?x",
    ]) {
      expect([path, (await send(path)).code]).toEqual([path, "unknown_page"]);
    }
    const head = await send("/", { method: "HEAD" });
    expect([head.status, head.text, Number(head.headers["content-length"]) > 1_000]).toEqual([200, "", true]);
  });

  it("to bytes that are no HTTP is short, and the server goes on", async () => {
    const socket = connect(Number(new URL(web.url).port), "127.0.0.1");
    socket.end("\x16\x03\x01 hello\r\n\r\n");
    const [bytes] = (await once(socket, "data")) as [Buffer];
    expect(bytes.toString()).toMatch(/^HTTP\/1.1 400 /);
    expect(
      (await send("/", { headers: { "x-long": "y".repeat(9_000) } }).catch(() => ({ status: 400 }))).status,
    ).toBeGreaterThanOrEqual(400);
    expect((await send("/")).status).toBe(200);
  });
});

describe("the page's scripts", () => {
  it("find all that they import, and the page names no file that is not there", async () => {
    const waiting = ["/"];
    const seen = new Set<string>();
    let weightBytes = 0;
    while (waiting.length > 0) {
      const path = waiting.pop()!;
      if (seen.has(path)) continue;
      seen.add(path);
      const { status, text } = await send(path);
      expect([path, status]).toEqual([path, 200]);
      weightBytes += Buffer.byteLength(text);
      const links = path === "/" ? text.matchAll(/(?:src|href)="(\/[^"]+)"/g) : text.matchAll(/from "([^"]+)"/g);
      for (const [, link] of links) waiting.push(new URL(link!, `http://x${path}`).pathname);
    }
    expect(seen).toContain("/base/readable.js");
    expect(seen.size).toBeGreaterThan(12);
    expect(weightBytes).toBeLessThan(64 * 1024);
  });

  it("never set markup, run text or put styles in place", async () => {
    const scripts = ["dom", "happenings", "live-stream", "main", "node-facts", "peer-rows", "requests"];
    for (const name of scripts) {
      const { text } = await send(`/web/page/${name}.js`);
      expect(text).not.toMatch(
        /innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|\.style\b|cookie/,
      );
    }
    expect((await send("/")).text).not.toMatch(/<script>|<style|style=|\son\w+=|https?:/);
  });
});

describe("the token", () => {
  it("is needed for everything that tells or changes something", async () => {
    for (const [path, method] of [
      ["/api/live", "GET"],
      ["/api/approve", "POST"],
      ["/api/deny", "POST"],
    ] as const) {
      const bare = await send(path, { method, headers: JSON_TYPE, body: shown(ASK) });
      expect([path, bare.status, bare.code]).toEqual([path, 401, "token_missing"]);
      for (const token of ["x", LOOK.slice(1), `${CHANGE}x`, CHANGE.toUpperCase()]) {
        const wrong = await send(path, { method, headers: JSON_TYPE, body: shown(ASK), token });
        expect([path, wrong.status, wrong.code]).toEqual([path, 401, "token_wrong"]);
      }
      const asCookie = await send(path, {
        method,
        headers: { ...JSON_TYPE, cookie: `token=${CHANGE}` },
        body: shown(ASK),
      });
      expect(asCookie.code).toBe("token_missing");
    }
    expect((await send(`/api/live?token=${CHANGE}`)).code).toBe("unknown_page");
    expect(changes).toEqual([]);
  });

  it("for looking changes nothing; and without --admin none does", async () => {
    expect(await approve({ token: LOOK })).toMatchObject({ status: 403, code: "read_only" });
    await web.close();
    web = await start(undefined);
    expect((await approve({ token: CHANGE })).code).toBe("token_wrong");
    expect((await approve({ token: LOOK })).text).toContain("--admin");
    expect(changes).toEqual([]);
  });

  it("does not help a page of another origin", async () => {
    const foreign = [
      { origin: "http://evil.example" },
      { origin: "null" },
      { origin: "http://127.0.0.1:1" },
      { origin: `https://${new URL(web.url).host}` },
      { "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-site" }, // another port of this machine
    ];
    for (const headers of foreign) {
      const { status, code } = await approve({ headers: { ...JSON_TYPE, ...headers } as Record<string, string> });
      expect([headers, status, code]).toEqual([headers, 403, "wrong_origin"]);
      expect((await send("/api/live", { headers: headers as Record<string, string>, token: LOOK })).code).toBe(
        "wrong_origin",
      );
    }
    expect(changes).toEqual([]);
    const own = { origin: web.url.slice(0, -1), "sec-fetch-site": "same-origin" };
    expect((await approve({ headers: { ...JSON_TYPE, ...own } })).status).toBe(200);
  });
});

describe("an answer to a request", () => {
  it("goes to the daemon with the limits that were shown", async () => {
    expect((await approve()).status).toBe(200);
    expect(
      (await send("/api/deny", { method: "POST", headers: JSON_TYPE, body: shown(ASK), token: CHANGE })).status,
    ).toBe(200);
    const terms = { ports: "tcp/443,udp/53", forMs: 7_200_000, maxBytes: 50_000_000 };
    expect(changes).toEqual([
      { method: "approve", request: { peer: "7", ...terms } },
      { method: "deny", request: { peer: "7" } },
    ]);
  });

  it("is refused when the peer asks for something else meanwhile, or no longer", async () => {
    for (const other of [
      { ports: null },
      { forS: null },
      { maxBytes: 60_000_000 },
      { reason: "x" },
      { fingerprint: "SHA256:def" },
    ]) {
      asks = [{ ...ASK, ...other }];
      expect([other, await approve()]).toMatchObject([other, { status: 409, code: "request_changed" }]);
    }
    asks = [];
    expect((await approve()).code).toBe("request_changed");
    expect(changes).toEqual([]);
  });

  it("is one of whoever started the page's server: who may only look is told so by the daemon", async () => {
    await control.close();
    const access = { ownUid: 0, readers: 200, changers: 201 };
    const reader = { pid: 1, uid: 1000, gids: [200], user: "ann", program: "node", login: null };
    control = await startControlServer(`${directory.path}/control.sock`, BACKEND, { access, identify: () => reader });
    const { status, code, text } = await approve();
    expect([status, code]).toEqual([403, "not_permitted"]);
    expect(text).toContain("pilot-admin");
    expect(changes).toEqual([]);
  });

  it("must be what the page sends: JSON, of this shape, and short", async () => {
    expect((await approve({ headers: { "content-type": "text/plain" } })).code).toBe("bad_request");
    for (const body of ["{", "null", "[]", "{}", shown({ ...ASK, node: 1.5 }), `{"more":1,${shown(ASK).slice(1)}`]) {
      expect([body, (await approve({ body })).code]).toEqual([body, "bad_request"]);
    }
    const long = await approve({ body: shown({ ...ASK, reason: "x".repeat(20_000) }) });
    expect([long.status, long.code]).toEqual([413, "request_too_large"]);
    expect(changes).toEqual([]);
  });
});

describe("the stream", () => {
  it("begins with who one is, and tells what the daemon tells", async () => {
    const [hello, view] = await live(2);
    expect(hello).toMatchObject({ event: "hello", data: { role: "look" } });
    const { state, failure } = view!.data as View;
    expect(failure).toBeNull();
    expect(state).toMatchObject({
      node: { address: STATUS.address, registry: { state: "connected" } },
      ...{ drops: STATUS.drops, problems: STATUS.problems, peersInAll: 2, flowsInAll: 1, requests: [ASK], denials: [] },
    });
    expect(state!.events.map(({ event }) => event)).toEqual(EVENTS.events.map(({ event }) => event).reverse());
    expect(await live(1, CHANGE)).toMatchObject([{ data: { role: "change" } }]);
  });

  it("says why the daemon tells nothing, and goes on when it does again", async () => {
    const seen = async () => (await live(2))[1]!.data as View;
    const slowly = { timeout: 20_000 };
    await control.close();
    await expect.poll(async () => (await seen()).failure?.code, slowly).toBe("not_running");
    refusal = new PilotError("not_permitted", "User 1000 may not look", "Join the group pilot.");
    control = await startControlServer(`${directory.path}/control.sock`, BACKEND);
    await expect.poll(async () => (await seen()).failure?.code, slowly).toBe("not_permitted");
    expect((await seen()).state).toBeNull();
    refusal = undefined;
    await expect.poll(async () => (await seen()).state?.node.address, slowly).toBe(STATUS.address);
  });

  it("is given to sixteen pages at a time, and again when one of them is closed", async () => {
    const open = await Promise.all(
      Array.from({ length: 16 }, async () => {
        const call = httpRequest(new URL("/api/live", web.url), {
          agent: false,
          headers: { authorization: `Bearer ${LOOK}` },
        });
        call.on("error", () => undefined);
        call.end();
        const [response] = (await once(call, "response")) as [IncomingMessage];
        expect(response.statusCode).toBe(200);
        response.on("error", () => undefined).resume();
        return call;
      }),
    );
    expect(await send("/api/live", { token: LOOK })).toMatchObject({ status: 429, code: "busy" });
    open[0]!.destroy();
    await expect.poll(async () => (await live(1).catch(() => [])).length).toBe(1);
    for (const call of open) call.destroy();
  });
});
