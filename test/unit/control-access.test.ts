/** Who may look at a daemon and who may change it. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type AccessRules, checkAccess, type Member } from "../../src/control/access.ts";
import type { Caller } from "../../src/control/caller.ts";
import { ControlClient } from "../../src/control/client.ts";
import { startControlServer } from "../../src/control/server.ts";
import { sendToUnixSocket } from "../../src/io/native.ts";
import { fakeBackend } from "../helpers/control-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "access-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const RULES: AccessRules = { ownUid: 500, readers: 60, changers: 61 };
const NOBODY: Caller = { pid: 1, uid: 1, gids: [], user: null, program: null, login: null };
const caller = (uid: number, ...gids: number[]): Member => ({ uid, gids });

describe("access", () => {
  it.each([
    ["root", caller(0), "ok", "ok"],
    ["the daemon's own user", caller(500), "ok", "ok"],
    ["a member of pilot-admin", caller(1000, 1000, 61), "ok", "ok"],
    ["a member of pilot", caller(1000, 1000, 60), "ok", "not_permitted"],
    ["anybody else", caller(1000, 1000), "not_permitted", "not_permitted"],
    ["nobody known", undefined, "not_permitted", "not_permitted"],
  ])("of %s to look and to change", (_, who, look, change) => {
    expect([tried("status", who), tried("trust/revoke", who)]).toEqual([look, change]);
  });

  it("of a group that the machine does not have is nobody's", () => {
    const rules = { ...RULES, readers: undefined, changers: undefined };
    expect(tried("status", caller(1000, 60, 61), rules)).toBe("not_permitted");
  });

  it("is asked of the kernel for each request, and refused with a code and what to do", async () => {
    const path = join(folder, "control.sock");
    let who = caller(1000, 60);
    const server = await startControlServer(path, fakeBackend(), {
      access: RULES,
      identify: () => ({ ...NOBODY, ...who }),
    });
    const client = new ControlClient(path);
    await client.call("status", {}, { timeoutMs: 5000 });
    const change = () => client.call("trust/revoke", { peer: "bob" }, { timeoutMs: 5000 });
    await expect(change()).rejects.toMatchObject({
      code: "not_permitted",
      hint: expect.stringContaining("pilot-admin"),
    });
    who = caller(1000, 61);
    await change();
    await server.close();
  });

  function tried(method: "status" | "trust/revoke", who: Member | undefined, rules = RULES): string {
    try {
      checkAccess(method, who, rules);
      return "ok";
    } catch (error) {
      return (error as { code: string }).code;
    }
  }
});

describe("a datagram's receiver", () => {
  it("must be there, and be named by a path or an abstract name", () => {
    expect(() => sendToUnixSocket(join(folder, "nobody"), "x")).toThrow(/ENOENT/);
    expect(() => sendToUnixSocket("@pilot-tun-nobody", "x")).toThrow(/ECONNREFUSED/);
    expect(() => sendToUnixSocket("relative", "x")).toThrow(/EINVAL/);
    expect(() => sendToUnixSocket(`/${"a".repeat(120)}`, "x")).toThrow(/EINVAL/);
  });
});
