/** The parts of the status page that are plain values: rates and history in its server, curves in its script. */
import { describe, expect, it } from "vitest";
import { CURVE_HEIGHT, CURVE_WIDTH, curveOf } from "../../src/web/page/curve.ts";
import { reasonWords } from "../../src/web/page/reasons.ts";
import { PeerHistory } from "../../src/web/peer-history.ts";
import { MAX_POINTS, type RttPoint } from "../../src/web/view.ts";
import { BOB_STATUS } from "../helpers/control-fixture.ts";

describe("the history of peers", () => {
  it("tells bytes a second from two looks, and nothing from one or after an interruption", () => {
    const history = new PeerHistory();
    const look = (rxBytes: number, atMs: number) => history.add([{ ...BOB_STATUS, rxBytes, txBytes: 0 }], atMs)[0]!;
    expect(look(1_000, 1_000)).toMatchObject({ rxRate: null, txRate: null });
    expect(look(5_000, 3_000)).toMatchObject({ rxRate: 2_000, txRate: 0 });
    expect(look(10, 5_000).rxRate).toBeNull(); // the counter began again
    history.interrupt();
    expect(look(9_000, 7_000).rxRate).toBeNull();
    expect(look(9_100, 8_000).rxRate).toBe(100);
  });

  it("keeps a bounded number of round trips, of present peers only", () => {
    const history = new PeerHistory();
    for (let look = 0; look < MAX_POINTS + 20; look++) history.add([BOB_STATUS], look * 2_000);
    const [[node, points] = []] = history.points();
    expect([node, points?.length, points?.at(-1)]).toEqual([7, MAX_POINTS, [(MAX_POINTS + 19) * 2_000, 4.12]]);
    history.add([], 1e9);
    expect(history.points()).toEqual([]);
  });
});

describe("a curve of round trips", () => {
  const inside = (text: string): void => {
    for (const pair of text.split(" ")) {
      const [x, y] = pair.split(",").map(Number);
      expect(x! >= 0 && x! <= CURVE_WIDTH && y! >= 0 && y! <= CURVE_HEIGHT).toBe(true);
    }
  };

  it("stays in its frame, ends at the newest, and says in words what it shows", () => {
    const points: RttPoint[] = [4, 8, 0, 2].map((rttMs, index) => [index * 2_000, rttMs]);
    const { lines, end, words } = curveOf(points, 6_000);
    expect(lines).toHaveLength(1);
    inside(lines[0]!);
    expect(end?.[0]).toBe(CURVE_WIDTH - 3);
    expect(words).toBe("last 2.0 ms, between 0.00 ms and 8.0 ms");
  });

  it("has a gap where no round trip was known, and leaves out what is older than its span", () => {
    const points: RttPoint[] = [
      [-1e9, 500],
      ...[1, 2, null, 3, 4, null].map((rttMs, index) => [index * 2_000, rttMs] as const),
    ];
    const { lines, end, words } = curveOf(points, 12_000);
    expect(lines).toHaveLength(2);
    expect(end).toBeNull();
    expect(words).not.toContain("500");
    expect(curveOf([], 0)).toEqual({ lines: [], end: null, words: "no round trip measured" });
  });
});

it("reasons of refusals have words, and unknown ones none, whatever they are called", () => {
  expect(reasonWords("not-trusted")).toContain("consent");
  for (const odd of ["constructor", "__proto__", "new-reason"]) expect(reasonWords(odd)).toBe("");
});
