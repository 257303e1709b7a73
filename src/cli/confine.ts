/** Before a daemon starts: less than root has. See docs/security.md. */
import { dirname } from "node:path";
import type { OwnFolder, Confinement as Wish } from "../daemon/confinement.ts";
import type { Context } from "./context.ts";

export type Confinement = Omit<Wish, "program">;

/** Returns in a process that has no more than it needs; before that it becomes this very program anew. */
export async function confineDaemon(context: Context, wish: Confinement): Promise<void> {
  const { confine } = await import("../daemon/confinement.ts");
  const [main = "", ...words] = process.argv.slice(1);
  if (confine({ ...wish, program: [process.execPath, main] })) {
    const { environment } = context;
    environment.become(
      process.execPath,
      [process.execPath, ...process.execArgv, main, ...words],
      environment.variables,
    );
  }
  if (process.geteuid?.() === 0)
    context.advise(`running as root with few capabilities; better is a user of its own: --user ${wish.ownUser}`);
}

/** Of state: empty, or known by one of these files, and without folders but that of the audit log. */
export function stateFolder(path: string, marks: readonly string[]): OwnFolder {
  const isOwn: OwnFolder["isOwn"] = (entries) =>
    entries.length === 0 ||
    (entries.some(({ name }) => marks.includes(name)) &&
      entries.every((entry) => !entry.isDirectory() || entry.name === "audit"));
  return { path, mode: 0o700, isOwn };
}

/** Of a socket. One that was there is the daemon's own only where it has its sockets by default. */
export function socketFolder(socket: string, byDefault: string): OwnFolder {
  const isOwn: OwnFolder["isOwn"] = (entries) => socket === byDefault && entries.every((entry) => entry.isSocket());
  return { path: dirname(socket), mode: 0o755, isOwn };
}
