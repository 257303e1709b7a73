/** Which groups of this machine may use the control socket. They are looked up once, when the daemon starts. */
import { type AccessRules, CHANGER_GROUP, READER_GROUP } from "../control/access.ts";
import { runCommand } from "../host/command.ts";

export async function controlAccess(): Promise<AccessRules> {
  const [readers, changers] = await Promise.all([groupId(READER_GROUP), groupId(CHANGER_GROUP)]);
  return { ownUid: process.geteuid!(), readers, changers };
}

/** By the machine's own rules, which may ask a directory service. */
async function groupId(name: string): Promise<number | undefined> {
  const { stdout } = await runCommand("getent", ["group", name]);
  const id = /^[^:]*:[^:]*:(\d+):/.exec(stdout)?.[1];
  return id === undefined ? undefined : Number(id);
}
