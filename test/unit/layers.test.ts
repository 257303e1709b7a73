/**
 * Who may import whom. The compiler keeps Node's types out of the pure folders; this holds the rest: which folder may
 * know which, and which words a pure folder must not say. The table is the whole truth: a folder of `src` that is not
 * in it fails, and so does a row whose folder has gone.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { codeOf, importsOf, listFiles } from "../helpers/source-text.ts";

interface Layer {
  readonly mayImport: readonly string[];
  /** Folders of which it may know the types, and nothing that runs. */
  readonly typesOnly?: readonly string[];
  /** Single files that may import more, and what. */
  readonly exceptions?: Readonly<Record<string, readonly string[]>>;
  /** npm packages, by name. */
  readonly packages?: readonly string[];
  readonly reason: string;
}

/** Pure: bytes, time and randomness come in as arguments, what is to be done comes out as a value. */
const PURE: Readonly<Record<string, Layer>> = {
  base: { mayImport: [], reason: "knows nothing of Pilot" },
  wire: { mayImport: ["base"], packages: ["ip-address"], reason: "formats know no state" },
  tunnel: {
    mayImport: ["wire", "base"],
    packages: ["@noble/ciphers", "@noble/curves", "@noble/hashes"],
    reason: "a link knows neither routes nor trust",
  },
  routing: { mayImport: ["wire", "base"], reason: "who owns an address does not depend on how it is reached" },
  stream: { mayImport: ["wire", "base"], reason: "a transport over packets knows no tunnel" },
  policy: { mayImport: ["wire", "base"], reason: "a verdict is made from what it is given" },
  trust: { mayImport: ["wire", "base"], reason: "no other part may widen what both sides consented to" },
  audit: { mayImport: ["wire", "base"], reason: "what is written down changes nothing that is decided" },
  registry: { mayImport: ["wire", "base"], reason: "the registry's answers are facts for the engine to judge" },
  beacon: { mayImport: ["wire", "base"], reason: "the beacon's answers are facts for the engine to judge" },
  names: { mayImport: ["wire", "base"], reason: "a zone is answered from what it is told is visible" },
  rendezvous: { mayImport: ["wire", "base"], reason: "the server shares formats with the daemon, and nothing else" },
  engine: {
    mayImport: ["tunnel", "routing", "stream", "policy", "trust", "audit", "registry", "beacon", "wire", "base"],
    reason: "the one place that joins its siblings",
  },
};

/** Edge: sockets, files, processes, clocks. */
const EDGE: Readonly<Record<string, Layer>> = {
  io: {
    mayImport: ["tunnel", "audit", "wire", "base"],
    typesOnly: ["engine", "registry", "beacon", "rendezvous", "trust", "names"],
    packages: ["@noble/curves", "dns-packet", "ws"],
    reason: "implements what the pure side asks for, and drives nothing",
  },
  host: { mayImport: ["wire", "base"], reason: "settings of this machine are applied, not decided" },
  control: { mayImport: ["wire", "base"], reason: "programs speak to any daemon of this schema" },
  web: {
    mayImport: ["control", "wire", "base"],
    reason: "another client of the control socket: what answers browsers is not the daemon",
  },
  daemon: {
    mayImport: ["control", "host", "io", "engine", ...Object.keys(PURE).filter((folder) => folder !== "engine")],
    reason: "puts everything together; nothing but the command line may know it",
  },
  cli: {
    mayImport: ["control", "wire", "base"],
    exceptions: {
      "up.ts": ["daemon"],
      "audit.ts": ["daemon"],
      "policy.ts": ["daemon"],
      "rendezvous.ts": ["daemon"],
      "id.ts": ["daemon"],
      "rendezvous-ops.ts": ["daemon"],
      "confine.ts": ["daemon"],
      "doctor.ts": ["host"],
      "run.ts": ["host"],
      "web.ts": ["web"],
    },
    typesOnly: ["daemon"],
    packages: ["commander", "ip-address", "smol-toml"],
    reason: "a client of the control socket; only the commands that are the daemon load it",
  },
};

const LAYERS = { ...PURE, ...EDGE };
const SOURCE = fileURLToPath(new URL("../../src/", import.meta.url));

describe("the table of layers", () => {
  it("names exactly the folders of src that hold code", () => {
    const folders = readdirSync(SOURCE, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && sourcesOf(entry.name).length > 0)
      .map((entry) => entry.name);
    expect(folders.sort()).toEqual(Object.keys(LAYERS).sort());
  });

  it("has no exception for a file that does not exist", () => {
    const gone = Object.entries(LAYERS).flatMap(([folder, layer]) =>
      Object.keys(layer.exceptions ?? {}).filter((file) => !sourcesOf(folder).includes(file)),
    );
    expect(gone).toEqual([]);
  });

  it("holds no code in src itself, outside every layer", () => {
    expect(readdirSync(SOURCE).filter((name) => name.endsWith(".ts"))).toEqual([]);
  });
});

describe.each(Object.entries(LAYERS))("src/%s", (folder, layer) => {
  it(`imports only what is below it: ${layer.reason}`, () => {
    const forbidden = sourcesOf(folder).flatMap((file) =>
      importsOf(readFileSync(`${SOURCE}${folder}/${file}`, "utf8"))
        .filter((found) => !mayImport(folder, layer, file, found))
        .map((found) => `${folder}/${file} imports ${found.from}`),
    );
    expect(forbidden).toEqual([]);
  });
});

describe.each(Object.keys(PURE))("src/%s, which is pure,", (folder) => {
  it("takes time, randomness and the outside world only as arguments", () => {
    const impure = sourcesOf(folder).flatMap((file) => {
      const code = codeOf(readFileSync(`${SOURCE}${folder}/${file}`, "utf8"));
      return [...code.matchAll(IMPURE)].map((match) => `${folder}/${file}: ${match[0]}`);
    });
    expect(impure).toEqual([]);
  });
});

const IMPURE = new RegExp(
  [
    /\bDate\.now\b/,
    /\bnew Date\b/,
    /\bMath\.random\b/,
    /\bset(?:Timeout|Interval|Immediate)\b/,
    /\bperformance\./,
    /\bconsole\./,
    /\bBuffer\b/,
    /(?<![.\w])process\./,
    /\bglobalThis\b/,
    /\bWebAssembly\b/,
    /(?<![.\w])crypto\.(?:subtle|getRandomValues|randomUUID)\b/,
  ]
    .map((pattern) => pattern.source)
    .join("|"),
  "g",
);

interface Import {
  readonly from: string;
  readonly typeOnly: boolean;
}

function mayImport(folder: string, layer: Layer, file: string, found: Import): boolean {
  if (found.from.startsWith("node:")) return folder in EDGE;
  if (!found.from.startsWith(".")) return (layer.packages ?? []).includes(packageOf(found.from));
  const target = folderOf(folder, file, found.from);
  if (target === folder || layer.mayImport.includes(target)) return true;
  if (found.typeOnly && (layer.typesOnly ?? []).includes(target)) return true;
  return (layer.exceptions?.[file] ?? []).includes(target);
}

function packageOf(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

/** The folder of `src` that a relative import of a file there leads to. */
function folderOf(folder: string, file: string, specifier: string): string {
  const url = new URL(specifier, `file:///src/${folder}/${file}`);
  return url.pathname.split("/")[2] ?? "";
}

/** Paths of TypeScript files within one folder of src. */
function sourcesOf(folder: string): string[] {
  return listFiles(`${SOURCE}${folder}`).filter((file) => file.endsWith(".ts"));
}
