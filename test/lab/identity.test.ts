/** A node that moves to another host with its backup, and is the same node there. */
import { chownSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Lab } from "../helpers/lab.ts";

let lab: Lab;

beforeEach(async () => {
  lab = await Lab.create("identity", { hosts: ["a", "b", "c"] });
  await lab.startRendezvous();
  await Promise.all([lab.startNode("a"), lab.startNode("b")]);
  await lab.trust("a", "b");
});

afterEach(() => lab?.close());

it("keeps address and trust on another host; a running daemon is not restored over", async () => {
  const secret = `${lab.folder}/secret`;
  writeFileSync(secret, "five words at random here\n", { mode: 0o600 });
  const file = `${lab.folder}/a.backup`;
  const { address, stateDir } = lab.node("a");
  await lab.pilot("a", "id", "backup", file, "--state", stateDir, "--passphrase-file", secret);
  const running = await lab.tryPilot("a", "id", "restore", file, "--state", stateDir, "--passphrase-file", secret);
  expect(running.reply.error.code).toBe("state_locked");
  await lab.stopNode("a");

  // The service's own user has the folder, and root restores.
  const moved = `${lab.folder}/c-state`;
  mkdirSync(moved, { mode: 0o700 });
  chownSync(moved, 12_345, 12_345);
  await lab.pilot("c", "id", "restore", file, "--state", moved, "--passphrase-file", secret);
  for (const name of ["identity.json", "trust.json", "node.json", "lock"]) {
    expect([name, statSync(`${moved}/${name}`).uid]).toEqual([name, 12_345]);
  }
  const there = await lab.startNode("c", { name: "a", control: `${lab.folder}/run-c/control.sock` });
  expect(there.address).toBe(address);
  await lab.waitForTrust("c", "b", "mutual");
  const { code, stdout } = await lab.exec("c", "ping", ["-6", "-c", "3", "-i", "0.2", lab.overlay("b")]);
  expect([code, stdout]).toEqual([0, expect.stringContaining("3 received")]);

  // So it is with every other command that works without the daemon, and root is not led elsewhere.
  await lab.stopNode("c");
  const victim = `${lab.folder}/of-root`;
  writeFileSync(victim, "as it was", { mode: 0o600 });
  symlinkSync(victim, `${moved}/identity-next.json.new`);
  const access = ["--state", moved, "--registry", lab.registry, "--insecure"];
  const { fingerprint } = await lab.pilot("c", "id", "rotate", ...access);
  expect((await lab.pilot("c", "id", "show", "--state", moved)).fingerprint).toBe(fingerprint);
  await lab.pilot("c", "deregister", ...access);
  for (const name of ["identity.json", "lock"]) {
    const { uid, gid, mode } = statSync(`${moved}/${name}`);
    expect([name, uid, gid, mode & 0o777]).toEqual([name, 12_345, 12_345, 0o600]);
  }
  expect([readFileSync(victim, "utf8"), statSync(victim).uid]).toEqual(["as it was", 0]);
});
