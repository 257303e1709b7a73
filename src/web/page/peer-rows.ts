/** The table of peers. */
import { ago, bytes, counted, roundTrip, UNKNOWN } from "../../base/readable.ts";
import type { PeerPath, PeerTrust } from "../../control/api.ts";
import { leaseWords } from "../../control/lease-words.ts";
import { peerName } from "../../control/peer-name.ts";
import { MAX_POINTS, type PeerView, type RttPoint, type State, type View } from "../view.ts";
import { CURVE_HEIGHT, CURVE_WIDTH, curveOf } from "./curve.ts";
import { find, make, makeRow, type Row, Rows, setClass, setText } from "./dom.ts";
import { rate } from "./node-facts.ts";

export class PeerRows {
  readonly #rows: Rows<PeerView>;
  /** Key: node number. Bound: peers of the last view. */
  #points = new Map<number, RttPoint[]>();
  #nowMs = 0;

  constructor() {
    this.#rows = new Rows(
      find("#peers tbody"),
      ({ node }) => String(node),
      () => new PeerRow((node) => curveOf(this.#points.get(node) ?? [], this.#nowMs)),
    );
  }

  /** As the server knows them from before this page was opened. */
  setHistory(history: readonly (readonly [number, readonly RttPoint[]])[]): void {
    this.#points = new Map(history.map(([node, points]) => [node, [...points]]));
  }

  show({ atMs }: View, { peers, peersInAll }: State): void {
    this.#nowMs = atMs;
    const before = this.#points;
    this.#points = new Map(peers.map((peer) => [peer.node, withPoint(before.get(peer.node) ?? [], atMs, peer.rttMs)]));
    this.#rows.show(peers);
    const more = peersInAll > peers.length ? ` of ${peersInAll}` : "";
    setText(find("#peers-title .count"), peers.length === 0 ? "" : `${peers.length}${more}`);
    find("#peers").hidden = peers.length === 0;
    find("#peers + .empty").hidden = peers.length > 0;
  }
}

/** The view that a stream begins with may be the last of its history. */
function withPoint(points: RttPoint[], atMs: number, rttMs: number | null): RttPoint[] {
  const last = points.at(-1);
  if (last === undefined || last[0] < atMs) points.push([atMs, rttMs]);
  return points.slice(-MAX_POINTS);
}

class PeerRow implements Row<PeerView> {
  readonly element: HTMLElement;
  readonly #curveOf: (node: number) => ReturnType<typeof curveOf>;
  readonly #name = make("strong", "line");
  readonly #address = make("span", "line mono");
  readonly #identity = make("span", "line quiet small");
  readonly #note = make("span", "line small");
  readonly #trust = make("span", "badge");
  readonly #path = make("span", "badge");
  readonly #endpoint = make("span", "line quiet small");
  readonly #rtt = make("span");
  readonly #curve = makeCurve();
  readonly #amounts = [makeAmount(), makeAmount()] as const;
  readonly #heard: HTMLElement;

  constructor(curve: (node: number) => ReturnType<typeof curveOf>) {
    this.#curveOf = curve;
    const { row, cells } = makeRow(
      ...[
        ["", ""],
        ["Trust", ""],
        ["Path", ""],
        ["Round trip", "whole"],
      ].map(([label, name]) => [label!, name!] as const),
      ...["Received", "Sent", "Heard"].map((label) => [label, "number"] as const),
    );
    this.element = row;
    const [name, trust, path, trip, received, sent, heard] = cells;
    name!.append(this.#name, this.#address, this.#identity, this.#note);
    trust!.append(this.#trust);
    path!.append(this.#path, this.#endpoint);
    trip!.append(make("div", "trip", this.#rtt, this.#curve));
    received!.append(...this.#amounts[0]);
    sent!.append(...this.#amounts[1]);
    this.#heard = heard!;
  }

  show(peer: PeerView): void {
    setText(this.#name, peerName(peer));
    setText(this.#address, peer.address);
    setText(this.#identity, `${peer.pilot} · ${KIND_WORDS[peer.kind]}`);
    setText(this.#note, noteOf(peer));
    setText(this.#trust, peer.trust);
    setClass(this.#trust, `badge ${TRUST_CLASS[peer.trust] ?? ""}`);
    setText(this.#path, peer.path === "none" ? "no path" : peer.path);
    setClass(this.#path, `badge ${PATH_CLASS[peer.path] ?? ""}`);
    setText(this.#endpoint, peer.endpoint ?? "");
    setText(this.#rtt, roundTrip(peer.rttMs));
    drawCurve(this.#curve, this.#curveOf(peer.node));
    showAmount(this.#amounts[0], peer.rxRate, peer.rxBytes, peer.rxPackets);
    showAmount(this.#amounts[1], peer.txRate, peer.txBytes, peer.txPackets);
    setText(this.#heard, ago(peer.lastReceivedAgoS));
  }
}

function noteOf({ note, lease }: PeerView): string {
  const words = lease === null || lease.endedBy !== null ? "" : `lease: ${leaseWords(lease)}`;
  return [note, words].filter(Boolean).join("; ");
}

function makeAmount(): [HTMLElement, HTMLElement] {
  return [make("span", "line"), make("span", "line quiet small")];
}

function showAmount(
  [speed, total]: readonly [HTMLElement, HTMLElement],
  rateNow: number | null,
  sum: number,
  packets: number,
): void {
  setText(speed, rate(rateNow));
  setText(total, sum === 0 ? UNKNOWN : bytes(sum));
  total.title = counted(packets, "packet");
}

const KIND_WORDS = { "pilot-tun": "pilot-tun", plain: "plain agent", unknown: "kind not known" } as const;
const TRUST_CLASS: Partial<Record<PeerTrust, string>> = {
  mutual: "good",
  asked: "warn",
  pending: "warn",
  revoked: "bad",
  "revoked-by-peer": "bad",
  "lease-ended": "bad",
};
const PATH_CLASS: Partial<Record<PeerPath, string>> = { direct: "good", relay: "warn", tcp: "warn" };

// ---- the curve ----------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function makeCurve(): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "curve");
  svg.setAttribute("viewBox", `0 0 ${CURVE_WIDTH} ${CURVE_HEIGHT}`);
  svg.setAttribute("role", "img");
  return svg;
}

function drawCurve(svg: SVGSVGElement, { lines, end, words }: ReturnType<typeof curveOf>): void {
  const drawn = [draw("line", { x1: 0, y1: CURVE_HEIGHT - 1, x2: CURVE_WIDTH, y2: CURVE_HEIGHT - 1 })];
  for (const points of lines) drawn.push(draw("polyline", { points }));
  if (end !== null) drawn.push(draw("circle", { cx: end[0], cy: end[1], r: 2.5 }));
  svg.replaceChildren(...drawn);
  svg.setAttribute("aria-label", words);
}

function draw(name: string, attributes: Readonly<Record<string, string | number>>): Element {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}
