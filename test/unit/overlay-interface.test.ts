/** The interface's addresses, when somebody takes them away while the daemon runs. */
import { beforeEach, describe, expect, it } from "vitest";
import type { Problem } from "../../src/base/error-code.ts";
import { PilotError } from "../../src/base/pilot-error.ts";
import { OverlayInterface } from "../../src/daemon/overlay-interface.ts";
import type { InterfaceConfig, InterfaceState } from "../../src/host/interface.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";

let state: InterfaceState | undefined;
let applied: InterfaceConfig[];
let isRefused: boolean;
let problems: Map<string, Problem>;
let face: OverlayInterface;

beforeEach(async () => {
  [state, applied, isRefused, problems] = [{ isUp: true, addresses: [] }, [], false, new Map()];
  const prefix = { text: "fd50:494c:4f54::/48", bytes: new Uint8Array([0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54]) };
  const engine = { node: nodeId(7), networks: { memberships: () => [networkId(3)] }, problems };
  face = new OverlayInterface({ tun: "pilot0", mtu: 1360, prefix, dns: true }, engine as never, {
    state: () => state,
    apply: (config) => {
      if (isRefused) return Promise.reject(new PilotError("interface_refused", "no IPv6 here", "Switch it on."));
      applied.push(config);
      state = { isUp: true, addresses: config.addresses };
      return Promise.resolve();
    },
  });
  await face.apply();
  applied.length = 0;
});

describe("a look at the interface", () => {
  it("does nothing while all is there, or while it cannot be seen", async () => {
    await face.look();
    state = undefined;
    await face.look();
    expect(applied).toEqual([]);
    expect(problems.size).toBe(0);
  });

  it("leaves an interface down that somebody set down, shows it, and brings everything back when it is up again", async () => {
    state = { isUp: false, addresses: [] };
    await face.look();
    expect(applied).toEqual([]);
    expect(problems.get("interface_down")).toMatchObject({ hint: expect.stringContaining("ip link set pilot0 up") });
    state = { isUp: true, addresses: [] };
    await face.look();
    expect(applied).toMatchObject([{ name: "pilot0", mtuBytes: 1360, prefix: "fd50:494c:4f54::/48" }]);
    expect(applied[0]!.addresses).toHaveLength(3); // of network 0, of the network it is in, of names
    expect(problems.size).toBe(0);
  });

  it("brings back a single address, and then lets be", async () => {
    state = { isUp: true, addresses: state!.addresses.slice(1) };
    await face.look();
    await face.look();
    expect(applied).toHaveLength(1);
  });

  it("shows a refusal, asks again only after a while, and takes the problem back", async () => {
    [state, isRefused] = [{ isUp: true, addresses: [] }, true];
    await face.look();
    expect(problems.get("interface_refused")?.message).toBe("no IPv6 here");
    isRefused = false;
    for (let looks = 0; looks < 5; looks++) await face.look();
    expect(applied).toEqual([]);
    await face.look();
    expect(applied).toHaveLength(1);
    expect(problems.size).toBe(0);
  });
});
