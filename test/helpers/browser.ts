/**
 * A headless Chromium in a namespace of a lab, with a profile of its own, and a witness of all that a page does: what it asks
 * for, what it says on its console, what breaks.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";
import type { Lab } from "./lab.ts";

export interface Witness {
  /** Every address that was asked for. */
  readonly requests: string[];
  /** Warnings and errors of the console, exceptions, dialogs. */
  readonly complaints: string[];
}

/** What runs in it ends with the lab at the latest. */
export async function startBrowser(lab: Lab, host: string): Promise<Browser> {
  const program = execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
  const launcher = `${lab.folder}/chromium-on-${host}`;
  writeFileSync(launcher, `#!/bin/sh\nexec ip netns exec ${lab.network.namespaceOf(host)} ${program} "$@"\n`);
  chmodSync(launcher, 0o755);
  return await chromium.launch({ executablePath: launcher, headless: true, args: [...FLAGS] });
}

/** playwright adds --headless and a new, empty --user-data-dir. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
] as const;

export function watchPage(page: Page): Witness {
  const witness: Witness = { requests: [], complaints: [] };
  page.on("request", (request) => void witness.requests.push(request.url()));
  page.on("pageerror", (error) => void witness.complaints.push(`exception: ${error.message}`));
  page.on("dialog", (dialog) => {
    witness.complaints.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) witness.complaints.push(`${message.type()}: ${message.text()}`);
  });
  return witness;
}
