/** What is done to the files of a rendezvous from outside of it. */
import { wallNow } from "../io/clock.ts";
import { type RestoreFacts, restoreStore } from "../io/store-backup.ts";

export { checkBackup } from "../io/store-backup.ts";

/** The old database is kept beside the new one, named by the time. */
export function restoreBackup(file: string, stateDir: string): RestoreFacts {
  return restoreStore(file, stateDir, new Date(wallNow()).toISOString().replaceAll(":", ""));
}
