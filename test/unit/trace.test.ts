/** What trace says of a link, by what has become of its path and candidates. */
import { describe, expect, it } from "vitest";
import { instant } from "../../src/base/instant.ts";
import type { PeerIdentity } from "../../src/control/api.ts";
import { traceReply } from "../../src/daemon/trace.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { Path } from "../../src/tunnel/path.ts";
import { nodeId } from "../../src/wire/ids.ts";

const NODE = nodeId(7);
const PEER: PeerIdentity = { node: 7, pilot: "0:0000.0000.0007", address: "fd50:494c:4f54::7", hostname: "bob" };
const RELAY = { address: "192.0.2.1", port: 9001 };
const THERE = { address: "198.51.100.7", port: 4000 };
const OTHER = { address: "198.51.100.7", port: 4001 };
const SINCE = instant(100_000);
const NOW = instant(101_000);

/** The engine as trace looks at it: one link, this path. */
function traced(path: Path | undefined, { isUp = true, lastReceivedAt = NOW } = {}) {
  const facts = path && {
    ...{ path: isUp ? path.kind : "none", endpoint: path.isRelayed ? RELAY : path.direct },
    ...{ isUp, lastReceivedAt },
  };
  const engine = {
    link: () => path && { isUp, path },
    linkFacts: () => facts,
    paths: { observed: OTHER, localAddresses: [{ address: "192.168.1.2", prefixLength: 24 }] },
  };
  return traceReply(engine as unknown as Engine, NODE, PEER, SINCE, NOW);
}

/** Tried, and then through the relay since the beginning. */
function relayed(): Path {
  const path = new Path(true);
  path.suggest(THERE, "registry", instant(0));
  path.candidates.tried(THERE, SINCE);
  path.heardRelay(instant(1));
  return path;
}

describe("trace", () => {
  it("of a direct path names the candidate that carries it, and no reason", () => {
    const path = new Path(true);
    path.suggest(OTHER, "lan", instant(0));
    path.suggest(THERE, "registry", instant(0));
    path.candidates.tried(THERE, SINCE);
    path.answeredDirect(THERE, SINCE, instant(100_020));
    expect(traced(path)).toMatchObject({
      path: "direct",
      endpoint: "198.51.100.7:4000",
      answered: true,
      notDirect: null,
      candidates: [
        { endpoint: "198.51.100.7:4001", origin: "lan", state: "untried", tries: 0, triedAgoS: null, rttMs: null },
        { endpoint: "198.51.100.7:4000", origin: "registry", state: "chosen", tries: 1, triedAgoS: 1, rttMs: 20 },
      ],
      history: [
        { agoS: 101, path: "direct", endpoint: "198.51.100.7:4000" },
        { path: "direct", endpoint: "198.51.100.7:4001" },
      ],
      observed: "198.51.100.7:4001",
      local: ["192.168.1.2"],
    });
  });

  it("of a relayed one names the relay, and says that no endpoint answers", () => {
    expect(traced(relayed())).toMatchObject({
      path: "relay",
      endpoint: "192.0.2.1:9001",
      answered: true,
      notDirect: { code: "no-answer", message: expect.stringContaining("no endpoint of the peer answers") },
      candidates: [{ state: "silent", tries: 1 }],
    });
  });

  it("says so when the peer is heard straight but does not answer there, and when that was long ago", () => {
    const path = relayed();
    path.candidates.heard(THERE, instant(96_000), undefined);
    expect(traced(path)).toMatchObject({ notDirect: { code: "one-way" }, candidates: [{ state: "heard" }] });
    const before = relayed();
    before.candidates.heard(THERE, instant(90_000), undefined);
    before.candidates.answered(THERE, 20, instant(90_000));
    expect(traced(before)).toMatchObject({ notDirect: { code: "no-answer" }, candidates: [{ state: "silent" }] });
  });

  it("says so when a direct way answers that is not used yet", () => {
    const path = relayed();
    path.candidates.answered(THERE, 20, instant(100_020));
    expect(traced(path)).toMatchObject({ notDirect: { code: "settling" }, candidates: [{ state: "answers" }] });
  });

  it("says so when nobody has named an endpoint", () => {
    const path = new Path(true);
    path.heardRelay(instant(1));
    expect(traced(path)).toMatchObject({ path: "relay", notDirect: { code: "no-candidates" }, candidates: [] });
  });

  it("says that UDP is blocked where the relay is reached by TCP", () => {
    const path = relayed();
    path.relayKind = "tcp";
    expect(traced(path)).toMatchObject({ path: "tcp", notDirect: { code: "udp-blocked" } });
  });

  it("says that no keys are agreed, or that a way in use is silent", () => {
    const none = { path: "none", endpoint: null, answered: false, notDirect: { code: "no-session" }, candidates: [] };
    expect(traced(undefined)).toMatchObject(none);
    expect(traced(relayed(), { isUp: false })).toMatchObject({ ...none, candidates: [{ state: "silent" }] });
    expect(traced(relayed(), { lastReceivedAt: instant(99_999) })).toMatchObject({ path: "relay", answered: false });
  });
});
