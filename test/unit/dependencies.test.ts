/** What is installed with this program, by its lock file: from the registry, with checksums, and no code that runs while installing. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

interface Locked {
  readonly version?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly link?: boolean;
  readonly dev?: boolean;
  readonly inBundle?: boolean;
  readonly hasInstallScript?: boolean;
}

const ROOT = new URL("../../", import.meta.url);
const read = (name: string) => JSON.parse(readFileSync(fileURLToPath(new URL(name, ROOT)), "utf8"));
const { packages, lockfileVersion } = read("package-lock.json") as {
  packages: Record<string, Locked>;
  lockfileVersion: number;
};
const installed = Object.entries(packages).filter(([path]) => path !== "");
const needed = installed.filter(([, { dev }]) => dev !== true);

test("every package is of the registry, of one version, and has a checksum of SHA-512", () => {
  expect([lockfileVersion, installed.length > 20]).toEqual([3, true]);
  const strange = installed.filter(
    ([, { version, integrity, resolved, link, inBundle }]) =>
      link === true ||
      inBundle === true ||
      resolved !== undefined ||
      !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version ?? "") ||
      !/^sha512-[A-Za-z0-9+/]{86}==$/.test(integrity ?? ""),
  );
  expect(strange).toEqual([]);
});

test("nothing that is needed to run executes anything while it is installed", () => {
  expect(needed.length).toBeGreaterThan(8);
  expect(needed.filter(([, { hasInstallScript }]) => hasInstallScript === true)).toEqual([]);
});

test("package.json asks for exact versions, those of the lock file", () => {
  const { dependencies, devDependencies, optionalDependencies } = read("package.json");
  const asked = { ...dependencies, ...devDependencies, ...optionalDependencies } as Record<string, string>;
  for (const [name, version] of Object.entries(asked)) {
    expect([name, packages[`node_modules/${name}`]?.version]).toEqual([name, version]);
  }
});
