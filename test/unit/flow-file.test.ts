import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FlowFile } from "../../src/daemon/flow-file.ts";
import { StateDirectory } from "../../src/io/state-directory.ts";
import { temporaryDirectory } from "../helpers/control-fixture.ts";

const FLOW = {
  ...{ protocol: 6, localPort: 40_000, remotePort: 80, beganRemotely: false },
  ...{ local: "00".repeat(12), remote: "01".repeat(12) },
};

let directory: ReturnType<typeof temporaryDirectory>;
let state: StateDirectory;

beforeEach(() => {
  directory = temporaryDirectory();
  state = new StateDirectory(directory.path);
});

afterEach(() => directory.remove());

const at = (boot: string, seconds: number) => () => ({ boot, sinceBootMs: seconds * 1000 });

function left(boot: string, seconds: number): number {
  return FlowFile.take(state, at(boot, seconds)).flows.length;
}

describe("the list of flows", () => {
  beforeEach(() => FlowFile.take(state, at("one", 100)).save([FLOW]));

  it("is there for the start that follows, once", () => {
    expect(FlowFile.take(state, at("one", 101)).flows).toEqual([FLOW]);
    expect(existsSync(join(directory.path, "flows.json"))).toBe(false);
    expect(left("one", 102)).toBe(0);
  });

  it.each([
    ["after two minutes", "one", 221],
    ["after a reboot", "two", 101],
    ["from the future", "one", 99],
  ])("is worth nothing %s", (_name, boot, seconds) => {
    expect(left(boot, seconds)).toBe(0);
  });

  it("that cannot be read is set aside and told of", () => {
    writeFileSync(join(directory.path, "flows.json"), '{"boot":"one"');
    const { flows, problem } = FlowFile.take(state, at("one", 101));
    expect([flows, problem?.code]).toEqual([[], "flows_damaged"]);
  });

  it("is not written when there is none", () => {
    left("one", 101);
    FlowFile.take(state, at("one", 102)).save([]);
    expect(existsSync(join(directory.path, "flows.json"))).toBe(false);
  });
});
