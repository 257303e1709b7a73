/**
 * Whose a file in a state folder is. The service runs as a user of its own, and what root does to its folder from outside
 * (a restore, a rotation of the key) must stay readable for it.
 *
 * Whoever owns the folder chooses what its names stand for, so root follows none of them: a file is made new, never
 * opened through a link, and given away by its descriptor.
 */
import { constants, fchownSync, fstatSync, openSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";

/** Opens a new file for writing, mode 0600, of the folder's owner; what had the name is gone. Throws what the system says. */
export function createOwnedFile(file: string): number {
  rmSync(file, { force: true });
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const fd = openSync(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  giveToFolderOwner(fd, dirname(file));
  return fd;
}

/** Nothing happens unless root writes into another's folder. A file with further names elsewhere is not given away. */
export function giveToFolderOwner(fd: number, folder: string): void {
  if (process.geteuid?.() !== 0) return;
  const { uid, gid } = statSync(folder);
  const file = fstatSync(fd);
  if (uid !== 0 && file.uid !== uid && file.nlink === 1) fchownSync(fd, uid, gid);
}
