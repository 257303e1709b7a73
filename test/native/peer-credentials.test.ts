/** Who is at the other end of a unix socket, by the kernel's word: here this very process. */
import { readFileSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { peerCredentials } from "../../src/io/peer-credentials.ts";
import { builtShim } from "./build-shim.ts";

const shim = builtShim();

it("is told with process, user, group and program", async () => {
  const path = join(tmpdir(), `pilot-tun-credentials-${process.pid}.sock`);
  const server = createServer();
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const client = connect(path);
  const socket = await accepted;
  expect(peerCredentials(socket)).toMatchObject({
    pid: process.pid,
    uid: process.getuid!(),
    program: readFileSync("/proc/self/comm", "utf8").trim(),
  });
  expect(new Set(peerCredentials(socket)?.gids)).toEqual(new Set([process.getegid!(), ...process.getgroups!()]));
  const closed = new Promise((resolve) => socket.once("close", resolve));
  client.destroy();
  socket.destroy();
  await closed;
  expect(peerCredentials(socket)).toBeUndefined();
  server.close();
  rmSync(path, { force: true });
});

it("is an error number for what is no socket", () => {
  expect(shim.unixPeer(-1)).toBeLessThan(0);
  expect(() => shim.unixPeer("x" as never)).toThrow();
});
