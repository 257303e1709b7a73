/** Plain agents that revoke as daemons of the reference do: they tell the registry, and us nothing. */
import { describe, expect, it } from "vitest";
import { commands, connect, icmp, learned, type Pair, pair, syn } from "../helpers/plain-pair.ts";

function revokedAtRegistry({ network, a, b }: Pair): void {
  b.disconnectRegistry(); // the engine that plays the agent must not find out the same of a
  network.store.removeConsent(b.node, a.node);
}

const trustOf = ({ a, b }: Pair): string | undefined => a.book.get(b.node)?.state;

describe("an agent that took its trust back without a word", () => {
  it("is found out when it leaves a SYN unanswered, and then programs are told at once", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    network.run(5_000);
    revokedAtRegistry(all);
    a.sendPacket(syn(a, b)); // b drops it: its server is not asked
    network.run(3_000);
    expect(trustOf(all)).toBe("mutual");
    network.runUntil(() => trustOf(all) === "revoked-by-peer", 1_000);
    a.takeTunPackets();
    a.sendPacket(syn(a, b, 40_001));
    expect(icmp(a.takeTunPackets()[0])).toEqual([1, 1]); // administratively prohibited
  });

  it.each([
    ["goes on", 0],
    ["was set back by a day", -86_400_000],
  ])(
    "is found out when it asks for the keys that it had, and what is open is reset, where the clock %s",
    (_how, skewMs) => {
      const all = pair();
      learned(all);
      const { network, a, b } = all;
      network.run(5_000);
      a.wallSkewMs = skewMs;
      connect(network, a, b);
      revokedAtRegistry(all);
      replayRequest(all);
      network.runUntil(() => trustOf(all) === "revoked-by-peer", 1_000);
      expect(commands(a)).toMatchObject([{ kind: "reset" }]);
    },
  );

  it("that did not is not blamed: not for a slow server, not for a replayed exchange", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    network.run(5_000);
    a.sendPacket(syn(a, b));
    replayRequest(all);
    network.run(6_000);
    expect(trustOf(all)).toBe("mutual");
  });

  it("is believed to be trusting while the registry does not answer, or says so of a trust just made", () => {
    const all = pair();
    learned(all);
    const { network, a, b } = all;
    revokedAtRegistry(all);
    replayRequest(all);
    network.run(1_000); // the trust is younger than five seconds
    expect(trustOf(all)).toBe("mutual");
    network.run(5_000);
    network.registryIsUp = false;
    replayRequest(all);
    a.sendPacket(syn(a, b));
    network.run(6_000);
    expect(trustOf(all)).toBe("mutual");
  });
});

/** The peer asks again for the keys of this session: a PILA with the flag for that. */
function replayRequest({ network, a, b }: Pair): void {
  const isRequest = (bytes: Uint8Array): boolean => bytes[3] === 0x41 && bytes.length === 154 && bytes[137] === 1;
  const sent = network.captured.filter(({ from, bytes }) => from === b.endpoint && isRequest(bytes));
  expect(sent.length).toBeGreaterThan(0);
  network.inject({ ...sent.at(-1)!, to: a.endpoint });
}
