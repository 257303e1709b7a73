/** What tests of the source itself need: the files, what each imports, and its code without comments and literals. */
import { readdirSync } from "node:fs";

export interface FoundImport {
  readonly from: string;
  /** True for `import type` and `export type`, which leave nothing to run. */
  readonly typeOnly: boolean;
}

/** Every `import … from`, `export … from`, `import "…"` and `import("…")`. */
export function importsOf(text: string): FoundImport[] {
  const code = text.replaceAll(COMMENT_OR_LITERAL, (found) => (found.startsWith("/") ? " " : found));
  const found: FoundImport[] = [];
  for (const match of code.matchAll(STATIC_IMPORT)) {
    found.push({ from: match[2]!, typeOnly: match[1] !== undefined });
  }
  for (const match of code.matchAll(DYNAMIC_IMPORT)) found.push({ from: match[1]!, typeOnly: false });
  return found;
}

/** Code with comments blanked and the text of plain string literals taken out; templates stay, as they hold code. */
export function codeOf(text: string): string {
  return text.replaceAll(COMMENT_OR_LITERAL, (found) => (found.startsWith("/") ? " " : '""'));
}

/** Paths below a folder, relative to it; empty when there is no such folder. */
export function listFiles(folder: string, skipFolder: (name: string) => boolean = () => false): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.isFile()) return [entry.name];
    if (!entry.isDirectory() || skipFolder(entry.name)) return [];
    return listFiles(`${folder}/${entry.name}`, skipFolder).map((file) => `${entry.name}/${file}`);
  });
}

const COMMENT_OR_LITERAL = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g;
const STATIC_IMPORT = /^\s*(?:import|export)\s+(?:(type)\s+(?!from\b))?(?:[^'";=()]*?\sfrom\s*)?["']([^"']+)["']/gm;
const DYNAMIC_IMPORT = /\bimport\s*\(\s*["']([^"']+)["']/g;
