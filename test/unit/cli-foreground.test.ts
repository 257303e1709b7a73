import { describe, expect, it } from "vitest";
import { runForeground } from "../../src/cli/foreground.ts";
import { CapturedProcess } from "../helpers/control-fixture.ts";

const never = new Promise<void>(() => undefined);

function turn(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

describe("a command in the foreground", () => {
  it("ends at once on the second signal while closing hangs", async () => {
    const captured = new CapturedProcess();
    void runForeground(
      captured,
      async () => ({ close: () => never }),
      () => undefined,
    );
    await turn();
    captured.signal("SIGINT");
    await turn();
    expect(captured.exits).toEqual([]);
    captured.signal("SIGTERM");
    expect(captured.exits).toEqual([128 + 15]);
  });

  it("told to end before it is ready gives up the start and ends with 0", async () => {
    const captured = new CapturedProcess();
    let announced = false;
    const ended = runForeground(
      captured,
      (signal) =>
        new Promise<{ close(): Promise<void> }>((_resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        }),
      () => {
        announced = true;
      },
    );
    captured.signal("SIGTERM");
    expect(await ended).toBe(0);
    expect(announced).toBe(false);
    expect(captured.signal("SIGTERM")).toBe(0);
  });

  it("told to end while a start that cannot be given up goes on closes it when it is there", async () => {
    const captured = new CapturedProcess();
    let closes = 0;
    let announced = false;
    const ended = runForeground(
      captured,
      async () => {
        await turn();
        return { close: async () => void closes++ };
      },
      () => {
        announced = true;
      },
    );
    captured.signal("SIGTERM");
    expect(await ended).toBe(0);
    expect([closes, announced]).toEqual([1, false]);
  });

  it("fails with what made the start or the running task fail", async () => {
    const failure = new Error("no /dev/net/tun");
    const start = runForeground(
      new CapturedProcess(),
      () => Promise.reject(failure),
      () => undefined,
    );
    await expect(start).rejects.toBe(failure);
    const running = runForeground(
      new CapturedProcess(),
      async () => ({ closed: Promise.reject(failure), close: async () => undefined }),
      () => undefined,
    );
    await expect(running).rejects.toBe(failure);
  });
});
