import { describe, expect, it } from "vitest";
import type { Endpoint } from "../../src/base/endpoint.ts";
import { instant } from "../../src/base/instant.ts";
import { MAX_CANDIDATES } from "../../src/tunnel/candidates.ts";
import { Path } from "../../src/tunnel/path.ts";

const at = instant;
const PUBLIC: Endpoint = { address: "198.51.100.7", port: 4000 };
const OTHER: Endpoint = { address: "198.51.100.8", port: 4000 };
const LAN: Endpoint = { address: "192.168.1.7", port: 4000 };

function directPath(): Path {
  const path = new Path(true);
  path.suggest(PUBLIC, "registry", at(0));
  path.heardDirect(PUBLIC, true, at(10));
  return path;
}

describe("a path", () => {
  it("is none until somebody names an endpoint, then direct by the registry's word", () => {
    const path = new Path(true);
    expect(path.kind).toBe("none");
    expect(path.suggest(LAN, "lan", at(0))).toBe("moved");
    expect(path.suggest(PUBLIC, "registry", at(0))).toBe("moved");
    expect([path.kind, path.direct]).toEqual(["direct", PUBLIC]);
    expect(path.suggest(LAN, "lan", at(0))).toBe("none"); // one guess more, but not the likeliest
  });

  it("keeps a proved endpoint whatever others say, and asks the newly named one", () => {
    const path = directPath();
    expect(path.suggest(OTHER, "registry", at(20))).toBe("probe");
    expect(path.suggest(OTHER, "registry", at(30))).toBe("none");
    expect(path.direct).toEqual(PUBLIC);
  });

  it("goes to the relay only when direct is silent, and says tcp when the beacon is reached so", () => {
    const path = directPath();
    expect(path.heardRelay(at(500))).toBe("none");
    expect(path.heardRelay(at(1_500))).toBe("moved");
    expect(path.kind).toBe("relay");
    path.relayKind = "tcp";
    expect([path.kind, path.isRelayed, path.direct]).toEqual(["tcp", true, PUBLIC]);
  });

  it("comes off the relay by data that came straight or by an answered probe, not by a mere probe of the peer", () => {
    for (const how of ["data", "answer"] as const) {
      const path = directPath();
      path.heardRelay(at(5_000));
      expect(path.heardDirect(OTHER, false, at(5_100))).toBe("probe");
      expect(path.isRelayed).toBe(true);
      if (how === "data") expect(path.heardDirect(OTHER, true, at(5_200))).toBe("moved");
      else expect(path.answeredDirect(OTHER, at(5_150), at(5_200))).toBe("moved");
      expect([path.kind, path.direct]).toEqual(["direct", OTHER]);
    }
  });

  it("follows a peer at once when what it leaves was the relay, or an endpoint that never proved itself", () => {
    const fromRelay = directPath();
    fromRelay.heardRelay(at(5_000));
    fromRelay.answeredDirect(OTHER, at(5_050), at(5_100));
    expect(fromRelay.heardDirect(PUBLIC, true, at(5_200))).toBe("moved");
    const fromHearsay = new Path(true);
    fromHearsay.suggest(PUBLIC, "registry", at(0));
    fromHearsay.heardDirect(OTHER, true, at(100));
    expect(fromHearsay.heardDirect(PUBLIC, true, at(200))).toBe("moved");
  });

  it("takes the endpoint it moved to for alive from that moment on", () => {
    const path = directPath();
    path.heardRelay(at(5_000));
    path.answeredDirect(OTHER, at(5_050), at(5_100));
    expect(path.heardRelay(at(5_900))).toBe("none");
    expect(path.isRelayed).toBe(false);
    expect(path.heardRelay(at(6_100))).toBe("moved");
  });

  it("follows a peer that moved at once", () => {
    const path = directPath();
    expect(path.heardDirect(OTHER, true, at(100))).toBe("moved");
    expect(path.direct).toEqual(OTHER);
  });

  it("does not swing between two endpoints that both work", () => {
    const path = directPath();
    path.heardDirect(OTHER, true, at(100));
    let moves = 0;
    for (let ms = 110; ms < 1_900; ms += 10) {
      if (path.heardDirect(ms % 20 === 0 ? PUBLIC : OTHER, true, at(ms)) === "moved") moves++;
    }
    expect(moves).toBe(0);
  });

  it("prefers the endpoint that never leaves the site, and does not leave it for another", () => {
    const path = directPath();
    expect(path.answeredDirect(LAN, at(20), at(30))).toBe("moved");
    path.heardDirect(LAN, true, at(40));
    expect(path.answeredDirect(PUBLIC, at(35), at(50))).toBe("none");
    expect(path.heardDirect(PUBLIC, true, at(60))).toBe("probe");
    expect(path.direct).toEqual(LAN);
  });

  it("takes a signed exchange for a guess only while nothing lives", () => {
    const path = directPath();
    path.guess(OTHER, false, at(500));
    path.guess(OTHER, true, at(500));
    expect([path.kind, path.direct]).toEqual(["direct", PUBLIC]);
    path.guess(OTHER, false, at(2_000));
    expect(path.direct).toEqual(OTHER);
  });

  it("prefers where a signed exchange just came from to what the registry says then, and asks there too", () => {
    const path = new Path(true);
    path.guess(OTHER, false, at(0));
    expect(path.suggest(PUBLIC, "registry", at(100))).toBe("probe");
    expect(path.direct).toEqual(OTHER);
    path.doubt(); // nothing answered: an exchange can be replayed from anywhere
    expect(path.suggest(PUBLIC, "registry", at(200))).toBe("moved");
    path.guess(OTHER, false, at(300));
    expect(path.suggest(PUBLIC, "registry", at(10_000))).toBe("moved");
  });

  it("remembers a bounded number of endpoints and changes, never losing the one in use", () => {
    const path = directPath();
    for (let port = 1; port < 200; port++) {
      path.suggest({ ...OTHER, port }, "punch", at(20 + port));
      path.heardRelay(at(10_000 * port));
      path.heardDirect(PUBLIC, true, at(10_000 * port + 1));
    }
    expect(path.targets().length).toBe(MAX_CANDIDATES);
    expect(path.targets()).toContainEqual(PUBLIC);
    expect(path.history.length).toBe(16);
  });
});
