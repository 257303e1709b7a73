/** `pilot-tun web` as a command: where it listens, to whom it tells its addresses. */
import { existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { expect, it } from "vitest";
import { run } from "../../src/cli/program.ts";
import { CapturedProcess, fakeBackend, withServer } from "../helpers/control-fixture.ts";

async function serve(words: readonly string[], look: (captured: CapturedProcess) => Promise<void>): Promise<void> {
  await withServer(fakeBackend(), async (control) => {
    const captured = new CapturedProcess();
    const ended = run(["--control", control, "web", ...words], captured);
    await expect.poll(() => captured.out + captured.err).not.toBe("");
    await look(captured);
    captured.signal("SIGTERM");
    expect(await ended).toBe(0);
  });
}

it("listens on loopback alone", async () => {
  for (const place of ["0.0.0.0:9587", "192.0.2.1:9587", "[::]:9587", "localhost:9587", "127.0.0.1", "127.0.0.1:0"]) {
    const captured = new CapturedProcess();
    expect([place, await run(["web", "--listen", place], captured)]).toEqual([place, 2]);
    expect(captured.err).toContain("ssh -L");
  }
});

it("prints an address for looking, another one for changes only if asked, and answers there", async () => {
  await serve(["--listen", "127.0.0.1:39587"], async ({ out }) => {
    expect(out).toMatch(/^look {2}http:\/\/127\.0\.0\.1:39587\/#[A-Za-z0-9_-]{32}\n$/);
    expect((await fetch(out.split(/\s+/)[1]!)).status).toBe(200);
  });
  await serve(["--listen", "[::1]:39587", "--admin"], async ({ out }) => {
    const tokens = [...out.matchAll(/http:\/\/\[::1\]:39587\/#([A-Za-z0-9_-]{32})\n/g)].map((match) => match[1]);
    expect([tokens.length, new Set(tokens).size]).toEqual([2, 2]);
  });
});

it("writes them into a file that only its user may read, also where another one was, and takes it away", async () => {
  await withServer(fakeBackend(), async (control) => {
    const file = `${dirname(control)}/addresses`;
    const captured = new CapturedProcess();
    const elsewhere = `${dirname(control)}/elsewhere`;
    writeFileSync(elsewhere, "mine", { mode: 0o644 });
    symlinkSync(elsewhere, file);
    const words = ["--control", control, "web", "--admin", "--listen", "127.0.0.1:39587", "--address-file", file];
    const ended = run(words, captured);
    await expect.poll(() => captured.out).not.toBe("");
    expect(captured.out).not.toContain("#");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file, "utf8").match(/#/g)).toHaveLength(2);
    expect(readFileSync(elsewhere, "utf8")).toBe("mine");
    captured.signal("SIGTERM");
    expect(await ended).toBe(0);
    expect(existsSync(file)).toBe(false);
  });
});

it("says which port is taken", async () => {
  await serve(["--listen", "127.0.0.1:39587"], async () => {
    const second = new CapturedProcess();
    expect(await run(["web", "--listen", "127.0.0.1:39587", "--json"], second)).toBe(1);
    expect(JSON.parse(second.out).error).toMatchObject({
      code: "web_unavailable",
      message: expect.stringContaining("39587"),
    });
  });
});
