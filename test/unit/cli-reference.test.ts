/** The manual, the completions and `context` say what --help says, of every command. */
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { run } from "../../src/cli/program.ts";
import { CapturedProcess } from "../helpers/control-fixture.ts";

async function output(...words: string[]): Promise<string> {
  const captured = new CapturedProcess();
  expect([words, await run(words, captured), captured.err]).toEqual([words, 0, ""]);
  return captured.out;
}

interface Facts {
  readonly name: string;
  readonly options: readonly { long: string }[];
  readonly arguments: readonly { name: string }[];
}

const { commands, exitCodes }: { commands: Facts[]; exitCodes: Record<string, string> } = JSON.parse(
  await output("context"),
);

describe("context", () => {
  it("names every command that the help names", async () => {
    for (const command of commands) {
      const help = await output(...command.name.split(" ").filter(Boolean), "--help");
      const listed = [...(help.split(/^Commands:$/m)[1] ?? "").matchAll(/^ {2}([a-z-]+)/gm)].map((match) => match[1]);
      const prefix = command.name === "" ? "" : `${command.name} `;
      const known = commands.map(({ name }) => name);
      for (const child of listed.filter((name) => name !== "help")) expect(known).toContain(`${prefix}${child}`);
      for (const { long } of command.options) expect(help).toContain(long);
    }
    expect(commands.length).toBeGreaterThan(30);
  });

  it("says what each exit code means", () => {
    expect(Object.keys(exitCodes)).toEqual(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
  });
});

describe("the manual page", () => {
  it("has every command, argument and option", async () => {
    const page = (await output("manual")).replaceAll("\\-", "-");
    for (const { name, options, arguments: args } of commands) {
      const children = commands.some((other) => other.name.startsWith(`${name} `));
      if (name !== "" && !(children && options.length === 0)) expect(page).toContain(`pilot-tun ${name}`);
      for (const { long } of options) expect(page).toContain(long);
      for (const argument of args) expect(page).toContain(argument.name);
    }
  });

  it("is well-formed: known macros only, every example opened is closed", async () => {
    const page = await output("manual");
    const requests = new Set([...page.matchAll(/^\.([A-Za-z]+)/gm)].map((match) => match[1]));
    expect(
      [...requests].filter((name) => !["TH", "SH", "SS", "B", "I", "BR", "TP", "PP", "nf", "fi"].includes(name!)),
    ).toEqual([]);
    expect(page.match(/^\.nf$/gm)?.length).toBe(page.match(/^\.fi$/gm)?.length);
    expect(page).not.toMatch(/undefined|\[object/);
  });
});

describe("completion in bash", () => {
  const complete = async (...words: string[]): Promise<string[]> => {
    const script = await output("completion", "bash");
    // The shell's own function stands in for the daemon: two peers.
    const peers = `pilot-tun() { echo '{"peers":[{"node":1,"hostname":"alice"},{"node":2,"hostname":"bob"}]}'; }`;
    const call = `COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}; _pilot_tun`;
    const text = execFileSync("bash", ["-c", `${script}\n${peers}\n${call}; printf '%s\\n' "\${COMPREPLY[@]}"`], {
      encoding: "utf8",
      cwd: "/proc/self/fdinfo",
    });
    return text.trim().split("\n");
  };

  it("knows commands, their subcommands and their options", async () => {
    expect(await complete("pilot-tun", "tr")).toEqual(expect.arrayContaining(["trust", "trace"]));
    expect(await complete("pilot-tun", "trust", "ap")).toEqual(["approve"]);
    expect(await complete("pilot-tun", "up", "--regis")).toEqual(
      expect.arrayContaining(["--registry", "--registry-tls", "--registry-fingerprint"]),
    );
    expect(await complete("pilot-tun", "--json", "policy", "appl")).toEqual(["apply"]);
  });

  it("knows the daemon's peers where a peer is asked for", async () => {
    expect(await complete("pilot-tun", "ping", "a")).toEqual(["alice"]);
    expect(await complete("pilot-tun", "trust", "revoke", "b")).toEqual(["bob"]);
  });
});

describe("completion", () => {
  it("of another shell is refused with those that there are", async () => {
    const captured = new CapturedProcess();
    expect(await run(["completion", "tcsh"], captured)).toBe(2);
    expect(captured.err).toContain("bash, zsh, fish");
  });

  it("of fish and zsh offers the same commands", async () => {
    const [fish, zsh] = [await output("completion", "fish"), await output("completion", "zsh")];
    for (const { name } of commands.filter((command) => command.name !== "")) {
      expect(fish).toContain(`-a '${name.split(" ").at(-1)}'`);
      expect(zsh).toContain(`'${name}'`);
    }
  });
});
