/** Two programs on one identity would take each other's packets or keys. The lock goes with the process, however it ends. */
import { join } from "node:path";
import { PilotError } from "../base/pilot-error.ts";
import { giveToFolderOwner } from "../io/folder-owner.ts";
import { lockFile, SystemError } from "../io/native.ts";
import { unwritable } from "../io/state-directory.ts";

export function lockState(directory: string): void {
  const lock = takeLock(join(directory, "lock"));
  if (lock !== undefined) return giveToFolderOwner(lock, directory);
  throw new PilotError(
    "state_locked",
    `Another daemon uses ${directory}`,
    "Stop it, or give this one a state folder of its own with --state.",
  );
}

function takeLock(file: string): number | undefined {
  try {
    return lockFile(file);
  } catch (cause) {
    throw cause instanceof SystemError ? unwritable(file, cause) : cause;
  }
}
