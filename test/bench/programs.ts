/** Programs that a bench uses when they are there, and leaves out what needs them when they are not. */
import { accessSync, constants } from "node:fs";

/** By a variable of the environment, else on the PATH and where servers live. */
export function findProgram(name: string, variable: string): string | undefined {
  const named = process.env[variable];
  if (named) return isExecutable(named) ? named : undefined;
  const folders = [...(process.env.PATH ?? "").split(":"), "/usr/sbin"];
  return folders.map((folder) => `${folder}/${name}`).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
