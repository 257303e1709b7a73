/** What the documents name is there: files, commands, options, keys of the configuration, tests, licences. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it, onTestFinished } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import { run } from "../../src/cli/program.ts";
import { parsePolicy } from "../../src/policy/parse-policy.ts";
import { ACCOUNTS } from "../helpers/accounts.ts";
import { CapturedProcess } from "../helpers/control-fixture.ts";
import { commandsOf } from "../helpers/quick-start.ts";
import { listFiles } from "../helpers/source-text.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const DOCUMENTS = [
  ...["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"],
  ...listFiles(`${ROOT}docs`)
    .filter((file) => file.endsWith(".md"))
    .map((file) => `docs/${file}`),
];
const TEXTS = new Map(DOCUMENTS.map((file) => [file, readFileSync(ROOT + file, "utf8")]));

interface Command {
  readonly name: string;
  readonly options: readonly { readonly long: string }[];
}

const captured = new CapturedProcess();
await run(["context"], captured);
const { commands }: { commands: Command[] } = JSON.parse(captured.out);
const NAMES = new Set(commands.map(({ name }) => name));
const PROGRAM_OPTIONS = new Set(commands.flatMap(({ options }) => options.map(({ long }) => long)));

/** Of other programs, which the documents use. */
const FOREIGN_OPTIONS = new Set(
  [
    "--transport --message --unix-socket --device --project --now --name --bind".split(" "),
    "--cap-drop --cap-add --rm --network --dns --sysctl".split(" "),
  ].flat(),
);
/** What reads the options of our scripts: one that a document names must be in there. */
const SCRIPTS = ["scripts", "test/bench", "test/fuzz", "test/scenarios"]
  .flatMap((folder) => listFiles(ROOT + folder, (name) => name === "corpus").map((file) => `${ROOT}${folder}/${file}`))
  .map((file) => readFileSync(file, "utf8"))
  .join("\n");
/** Left out of the help on purpose; docs/plain-agents.md says so. */
const HIDDEN_OPTIONS = new Set(["--plain-only"]);

/** Everything in the documents that the pattern finds and the predicate refuses, with its file. */
function wrongIn(pattern: RegExp, isWrong: (found: RegExpMatchArray, file: string) => boolean): string[] {
  return [...TEXTS].flatMap(([file, text]) =>
    [...text.matchAll(pattern)].filter((found) => isWrong(found, file)).map((found) => `${file}: ${found[0]}`),
  );
}

/** Text that is typed: fenced, indented and quoted code. */
function codeIn(text: string): string {
  const fenced = [...text.matchAll(/^```.*\n([\s\S]*?)^```/gm)].map((match) => match[1]!);
  const indented = [...text.matchAll(/^ {4}.*$/gm)].map((match) => match[0]);
  const quoted = [...text.matchAll(/`([^`\n]+)`/g)].map((match) => match[1]!);
  return [...fenced, ...indented, ...quoted].join("\n");
}

describe("documents", () => {
  it("link to files that are there, and to headings that these have", () => {
    const wrong = wrongIn(/\]\(([^)\s]+)\)/g, ([, target], file) => {
      if (/^https?:/.test(target!)) return false;
      const [path, heading] = target!.split("#");
      const full = path === "" ? file : join(dirname(file), path!);
      if (!existsSync(ROOT + full)) return true;
      return heading !== undefined && !anchorsOf(readFileSync(ROOT + full, "utf8")).has(heading);
    });
    expect(wrong).toEqual([]);
  });

  it("are all found from the list of documents", () => {
    const listed = [...TEXTS.get("docs/README.md")!.matchAll(/\]\(([^)#]+)/g)].map((match) => join("docs", match[1]!));
    const files = listFiles(`${ROOT}docs`).map((file) => `docs/${file}`);
    expect(files.filter((file) => file !== "docs/README.md" && !listed.includes(file))).toEqual([]);
  });

  it("name commands that there are", () => {
    const wrong: string[] = [];
    for (const [file, text] of TEXTS) {
      const code = codeIn(text).replaceAll(/(?:^|\s)# .*$/gm, "");
      for (const [, line] of code.matchAll(/\bpilot-tun ((?:--?\S+ )*[a-z][^\n`]*)/g)) {
        for (const words of spellings(line!))
          if (!isCommand(words)) wrong.push(`${file}: pilot-tun ${words.join(" ")}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it("name options that there are", () => {
    const known = (option: string): boolean =>
      PROGRAM_OPTIONS.has(option) || FOREIGN_OPTIONS.has(option) || HIDDEN_OPTIONS.has(option) || isOfScripts(option);
    const wrong = [...TEXTS].flatMap(([file, text]) =>
      [...codeIn(text).matchAll(/(?:^|[\s`[(])(--[a-z][a-z0-9-]*[a-z0-9])(?![\w-])/gm)]
        .map((match) => match[1]!)
        .filter((option) => !known(option))
        .map((option) => `${file}: ${option}`),
    );
    expect(wrong).toEqual([]);
  });

  it("give a command options of its own", () => {
    const wrong: string[] = [];
    for (const [file, text] of TEXTS) {
      const code = codeIn(text)
        .replaceAll(/\\\n/g, " ")
        .replaceAll(/(?:^|\s)# .*$/gm, "");
      for (const [, line] of code.matchAll(/\bpilot-tun ([a-z][^\n`|;&]*)/g)) {
        const known = optionsOf(line!);
        const options = [...line!.matchAll(/(?<=^|[\s[(])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])/g)].map(
          ([option]) => option,
        );
        const foreign = options.filter((option) => !known.has(option) && !HIDDEN_OPTIONS.has(option));
        wrong.push(...foreign.map((option) => `${file}: ${line} (${option})`));
      }
    }
    expect(wrong).toEqual([]);
  });

  it("name keys of the configuration and variables that there are", () => {
    const isOption = (key: string): boolean => {
      const name = key.toLowerCase().replaceAll("_", "-");
      return PROGRAM_OPTIONS.has(`--${name}`) || PROGRAM_OPTIONS.has(`--no-${name}`);
    };
    const keys = /`([a-z][a-z_]*) = (?:true|false|\d+|"[^"`]*")`/g;
    const variables = /PILOT_TUN_([A-Z_]+)/g;
    expect([
      ...wrongIn(keys, ([, key]) => !isOption(key!)),
      ...wrongIn(variables, ([, key]) => !isOption(key!)),
    ]).toEqual([]);
  });

  it("show configurations that the daemon and the rendezvous take", async () => {
    const folder = mkdtempSync(join(tmpdir(), "documents-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    let shown = 0;
    for (const [file, text] of TEXTS) {
      for (const [, path, toml] of text.matchAll(/`\/etc\/pilot-tun\/(\w+)\.toml`[^`]*\n\n```toml\n([\s\S]*?)^```/gm)) {
        writeFileSync(join(folder, "shown.toml"), toml!);
        const words = [path === "rendezvous" ? "rendezvous" : "up", "--check", "--config", join(folder, "shown.toml")];
        shown++;
        const checked = new CapturedProcess();
        expect([file, await run(words, checked), checked.err]).toEqual([file, 0, ""]);
      }
    }
    expect(shown).toBeGreaterThan(1);
  });

  it("show policies without mistakes", () => {
    const shown = [...TEXTS].flatMap(([file, text]) =>
      [...text.matchAll(/^```\n((?:default|allow|deny|test) [\s\S]*?)^```/gm)].map((match) => ({
        file,
        text: match[1]!,
      })),
    );
    expect(shown.map(({ file }) => file).sort()).toEqual(["README.md", "docs/policy.md"]);
    const accounts = { ...ACCOUNTS, userId: () => 34 };
    for (const { file, text } of shown) {
      const source = { file, text: text.replaceAll("…", "A".repeat(40)), writtenAt: 0 as WallClock };
      expect(parsePolicy([source], accounts).problems).toEqual([]);
    }
  });

  it("name sources and tests that are there", () => {
    const paths = /`((?:src|test|scripts|systemd|native-shims)\/[\w./-]+\.\w+)`/g;
    expect(wrongIn(paths, ([, path], file) => file !== "docs/comparison.md" && !existsSync(ROOT + path!))).toEqual([]);
  });
});

it.each(["ARCHITECTURE.md", "CONTRIBUTING.md"])("%s names every folder of the sources", (file) => {
  const folders = new Set(listFiles(`${ROOT}src`).map((path) => path.split("/")[0]!));
  const named = new Set([...TEXTS.get(file)!.matchAll(/`([a-z]+)\/?`/g)].map((match) => match[1]));
  expect([...folders].filter((folder) => !folder.includes(".") && !named.has(folder))).toEqual([]);
});

describe("the README", () => {
  it("begins with the demo and the tests", () => {
    const first = /```sh\n([\s\S]*?)```/.exec(TEXTS.get("README.md")!)?.[1];
    expect(first).toBe("./scripts/demo\n./scripts/test\n");
  });

  it("shows the commands of the quick start, which are tested", () => {
    expect(commandsOf("README.md")).toEqual(commandsOf("docs/quick-start.md").slice(0, 6));
  });

  it("names every command but those that it names together", () => {
    const text = TEXTS.get("README.md")!;
    const top = [...NAMES].filter((name) => name !== "" && !name.includes(" ") && !["help", "version"].includes(name));
    expect(top.filter((name) => !new RegExp(`\\b${name}\\b`).test(codeIn(text)))).toEqual([]);
  });
});

it("docs/security.md lists what is needed to run, with its licence, and nothing else", () => {
  const { packages } = JSON.parse(readFileSync(`${ROOT}package-lock.json`, "utf8"));
  const needed = Object.entries<{ dev?: boolean; license?: string }>(packages)
    .filter(([path, { dev }]) => path !== "" && dev !== true)
    .map(([path, { license }]) => `${path.replace("node_modules/", "")} ${license}`);
  const section = TEXTS.get("docs/security.md")!.split("## What it is made of")[1]!.split("\n## ")[0]!;
  const listed = [...section.matchAll(/^\| (.+?) \| ([\w.-]+) \| .+ \|$/gm)].flatMap(([, names, license]) =>
    [...names!.matchAll(/(?:@\w+\/)?[a-z][\w-]*\w/g)].map(([name]) => `${name} ${license}`),
  );
  const plain = listed.filter((line) => !line.startsWith("node ") && !line.endsWith(" licence"));
  expect(plain.sort()).toEqual(needed.sort());
});

/** `--seed`, or `seed` where a script gives its options to a parser. */
function isOfScripts(option: string): boolean {
  const name = option.slice(2);
  return new RegExp(`${option}(?![\\w-])|^ +"?${name}"?: \\{`, "m").test(SCRIPTS);
}

/** As GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map((match) => match[1]!.toLowerCase());
  return new Set(headings.map((heading) => heading.replaceAll(/[^\w\- ]/g, "").replaceAll(" ", "-")));
}

/** `trust ask|approve PEER` is two; options before the command are left out. */
function spellings(line: string): string[][] {
  const words = line.replace(/^(?:--?\S+ )+/, "").split(/[\s)`'"]+/);
  const [first = "", second = ""] = words;
  const seconds = second.replaceAll("\\", "").split("|");
  return seconds.map((word) => [first.replace(/[^a-z-].*$/, ""), word]);
}

/** Of the command that a line names, and of all commands. */
function optionsOf(line: string): Set<string> {
  const words = line.split(/\s+/);
  const names = ["", words[0]!, `${words[0]} ${words[1]}`];
  return new Set(
    commands.filter(({ name }) => names.includes(name)).flatMap(({ options }) => options.map(({ long }) => long)),
  );
}

function isCommand([first, second]: string[]): boolean {
  if (!NAMES.has(first!)) return false;
  const takesCommand = [...NAMES].some((name) => name.startsWith(`${first} `));
  const takesWords = commands.some(({ name }) => name === first && !takesCommand);
  if (takesWords || second === undefined || !/^[a-z]+$/.test(second)) return true;
  return NAMES.has(`${first} ${second}`) || second === "dump";
}
