import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PilotError } from "../../src/base/pilot-error.ts";
import type { NetworkBackend } from "../../src/control/network-api.ts";
import { fakeBackend, fakeKey, fakeNetworks, runCli } from "../helpers/control-fixture.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cli-networks-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

const cli = (argv: readonly string[], replace: Partial<NetworkBackend> = {}) =>
  runCli(argv, fakeBackend({ network: fakeNetworks(replace) }));

describe("network", () => {
  it("lists networks with this node's addresses", async () => {
    const { out } = await cli(["network", "ls"]);
    const [head, row] = out.split("\n").map((line) => line.split(/ {2,}/));
    expect(head).toEqual(["ID", "NAME", "RULE", "MEMBERS", "PREFIX", "ADDRESS"]);
    expect(row).toEqual(["1", "ops", "invite", "3", "fd50:494c:4f54:1::/64", "fd50:494c:4f54:1::5"]);
  });

  it("says the address that joining gave, and what leaving could not tell", async () => {
    expect((await cli(["network", "join", "ops"])).out).toBe("joined ops: this node is fd50:494c:4f54:1::5 in it\n");
    const leave: NetworkBackend["leave"] = async () => ({ network: 1, name: null, address: null, registryTold: false });
    const { out } = await cli(["network", "leave", "1"], { leave });
    expect(out).toBe("left network 1; the registry will be told when it can be reached\n");
  });

  it("reads tokens from files only, and says what is wrong with one", async () => {
    const file = join(folder, "token");
    writeFileSync(file, "sesame\n");
    let heard: unknown;
    const joined: NetworkBackend["join"] = async (request) => {
      heard = request;
      return { network: 1, name: "ops", address: null };
    };
    expect((await cli(["network", "join", "ops", "--token-file", file], { join: joined })).code).toBe(0);
    expect(heard).toEqual({ network: "ops", token: "sesame" });
    writeFileSync(file, "\n");
    const empty = await cli(["network", "join", "ops", "--token-file", file]);
    expect([empty.code, empty.err.includes("is empty")]).toEqual([2, true]);
    expect((await cli(["network", "join", "ops", "--token-file", join(folder, "none")])).code).toBe(2);
  });

  it("makes a network by its rule, and asks for the token that the rule needs", async () => {
    const file = join(folder, "admin");
    writeFileSync(file, "admin");
    let heard: unknown;
    const create: NetworkBackend["create"] = async (request) => {
      heard = request;
      return { network: 4, name: request.name, address: null };
    };
    const words = ["network", "create", "dev", "--admin-token-file", file];
    expect((await cli(words, { create })).code).toBe(0);
    expect(heard).toEqual({ name: "dev", joinRule: "invite", adminToken: "admin" });
    expect((await cli([...words, "--rule", "token"])).code).toBe(2);
    expect((await cli([...words, "--rule", "nobody"])).code).toBe(2);
    expect((await cli(["network", "create", "dev"])).code).toBe(2);
  });

  it("deletes a network for who has the admin token, and says that members follow", async () => {
    const file = join(folder, "admin");
    writeFileSync(file, "admin");
    let heard: unknown;
    const remove: NetworkBackend["delete"] = async (request) => {
      heard = request;
      return { network: 1, name: "ops", address: null };
    };
    const { code, out } = await cli(["network", "delete", "ops", "--admin-token-file", file], { delete: remove });
    expect([code, out]).toEqual([0, "deleted ops; its members lose their addresses in it within minutes\n"]);
    expect(heard).toEqual({ network: "ops", adminToken: "admin" });
    expect((await cli(["network", "delete", "ops"])).code).toBe(2);
  });

  it("shows who invited, when, and when the invitation ends", async () => {
    const { out } = await cli(["network", "invites"]);
    expect(out).toContain("1 min ago");
    expect(out).toContain("in 1 d 0 h");
  });

  it("ends with the code of a refusal", async () => {
    const refuse = async (): Promise<never> => {
      throw new PilotError("network_refused", "The registry refused: request failed", "Check it.");
    };
    expect((await cli(["network", "accept", "ops"], { accept: refuse })).code).toBe(4);
    expect((await cli(["network", "members", "ops"], { members: refuse })).code).toBe(4);
  });
});

describe("id and deregister", () => {
  it("ask the running daemon, and say what each peer must do", async () => {
    let heard: unknown;
    const key = fakeKey({
      rotate: async (request) => {
        heard = request;
        return await fakeKey().rotate(request, AbortSignal.timeout(1_000));
      },
    });
    const { code, out } = await runCli(["id", "rotate", "--insecure"], fakeBackend({ key }));
    expect([code, heard]).toEqual([0, { insecure: true }]);
    expect(out).toContain("rotated: was SHA256:old");
    expect(out).toMatch(/1 peer will refuse this one: bob\nthere: pilot-tun trust revoke 0:0000.0000.0005, then /);
    const gone = await runCli(["deregister"], fakeBackend());
    expect([gone.code, gone.out]).toEqual([0, "deregistered 0:0000.0000.0005; its number and key are kept\n"]);
  });

  it("refuse plain TCP before they look at anything but the options", async () => {
    const where = ["--state", folder, "--registry", "127.0.0.1:1"];
    for (const words of [["id", "rotate"], ["deregister"]]) {
      const { code, err } = await cli([...words, ...where]);
      expect(code).toBe(4);
      expect(err).toContain("insecure_registry");
    }
  });

  it("make nothing in a folder without an identity", async () => {
    const { code, err } = await cli(["id", "show", "--state", join(folder, "nothing")]);
    expect([code, err.includes("no_identity")]).toEqual([1, true]);
  });

  it("take one way to know the registry, not two", async () => {
    const fingerprint = "ab".repeat(32);
    const { code, err } = await cli([
      ...["id", "rotate", "--state", folder, "--registry", "127.0.0.1:1"],
      ...["--registry-tls", "--registry-fingerprint", fingerprint],
    ]);
    expect([code, err.includes("excludes")]).toEqual([2, true]);
  });
});
