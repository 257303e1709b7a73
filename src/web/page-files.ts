/**
 * The files of the page, read once at the start: its own, and the modules of other folders that its scripts share with the
 * command line. Their paths are those of `dist`, so that the scripts find each other. Nothing else is ever read for a request.
 */
import { readdirSync, readFileSync } from "node:fs";
import { PilotError } from "../base/pilot-error.ts";

export interface PageFile {
  readonly type: string;
  readonly content: Buffer;
}

/** `src/web/` and `dist/web/` lie equally deep. */
const DIST = new URL("../../dist/", import.meta.url);
const OWN_FOLDER = "web/page/";
const SHARED = [
  "base/readable.js",
  "control/event-words.js",
  "control/lease-words.js",
  "control/peer-name.js",
  "web/view.js",
];
const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  svg: "image/svg+xml",
};

/** Key: path of the request. Bound: files of the page. Throws PilotError `web_unavailable`. */
export function readPageFiles(): ReadonlyMap<string, PageFile> {
  try {
    const own = readdirSync(new URL(OWN_FOLDER, DIST)).map((name) => `${OWN_FOLDER}${name}`);
    const files = new Map<string, PageFile>();
    for (const path of [...own, ...SHARED]) {
      const type = TYPES[path.slice(path.lastIndexOf(".") + 1)];
      if (type !== undefined) files.set(`/${path}`, { type, content: readFileSync(new URL(path, DIST)) });
    }
    files.set("/", files.get(`/${OWN_FOLDER}index.html`)!);
    return files;
  } catch (error) {
    throw new PilotError(
      "web_unavailable",
      `The files of the page cannot be read: ${(error as Error).message}`,
      "Install pilot-tun anew, or run scripts/build in a checkout.",
      error,
    );
  }
}
