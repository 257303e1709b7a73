/** Lists of what passes, what was refused, what is wrong and what happened. */
import { bytes, duration, UNKNOWN } from "../../base/readable.ts";
import type { Problem } from "../../control/api.ts";
import { describeEvent, nameOf } from "../../control/event-words.ts";
import type { LiveEvent } from "../../control/events-api.ts";
import { peerName } from "../../control/peer-name.ts";
import type { FlowStatus, PolicyPlace } from "../../control/policy-api.ts";
import type { State } from "../view.ts";
import { find, make, makeFact, makeRow, type Row, Rows, setText, setWords } from "./dom.ts";
import { reasonWords } from "./reasons.ts";

export class Happenings {
  readonly #problems = new Rows<Problem>(
    find("#problems"),
    ({ code, message }) => `${code} ${message}`,
    () => problemRow("warn"),
  );
  readonly #denials = new Rows<LiveEvent>(find("#denials tbody"), keyOfEvent, denialRow);
  readonly #drops = new Rows<readonly [string, number]>(find("#drops dl"), ([reason]) => reason, dropRow);
  readonly #flows = new Rows<FlowStatus>(find("#flows tbody"), ({ id }) => id, flowRow);
  readonly #events = new Rows<LiveEvent>(find("#events"), keyOfEvent, eventRow);

  show(state: State): void {
    this.#problems.show(state.problems);
    this.#denials.show(state.denials);
    showEmptiness("#denials", state.denials.length);
    const drops = Object.entries(state.drops);
    this.#drops.show(drops);
    find("#drops").hidden = drops.length === 0;
    this.#flows.show(state.flows);
    showEmptiness("#flows", state.flows.length);
    const more = state.flowsInAll > state.flows.length ? ` of ${state.flowsInAll}, those used last` : "";
    setText(find("#flows-title .count"), state.flows.length === 0 ? "" : `${state.flows.length}${more}`);
    this.#events.show(state.events);
    showEmptiness("#events", state.events.length);
  }
}

function showEmptiness(list: string, length: number): void {
  find(list).hidden = length === 0;
  find(`${list} ~ .empty`).hidden = length > 0;
}

/** Two of one moment may say different things; those that say the same are shown once. */
function keyOfEvent({ at, event, facts }: LiveEvent): string {
  return `${at} ${event} ${JSON.stringify(facts)}`;
}

export function problemRow(severity: "warn" | "bad"): Row<Problem> {
  const [message, hint] = [make("strong"), make("span")];
  const code = make("span", `badge ${severity}`);
  const element = make("li", "problem", make("p", "", message, " ", code), make("p", "", hint));
  return {
    element,
    show: (problem) => {
      setText(message, problem.message);
      setText(code, problem.code);
      setWords(hint, problem.hint);
    },
  };
}

function denialRow({ at, facts }: LiveEvent): Row<LiveEvent> {
  const { row, cells } = makeRow(["", ""], ["What", "whole"], ["Why", "whole"], ["Rule", ""], ["Packets", "number"]);
  const [when, what, why, rule, count] = cells;
  when!.append(timeOf(at));
  what!.append(make("span", "", deniedFlow(facts)));
  const reason = String(facts.reason ?? "several reasons");
  why!.append(make("span", "badge bad", reason), make("span", "line quiet small", reasonWords(reason)));
  setText(rule!, placeText(facts.rule));
  setText(count!, String(facts.count ?? 1));
  return { element: row, show: () => undefined }; // what was refused does not change any more
}

/** `bob → here, tcp 22`. */
function deniedFlow({ peer, direction, protocol, ports }: LiveEvent["facts"]): string {
  const name = peer === null || peer === undefined ? "several peers" : nameOf(peer);
  const way = direction === "in" ? `${name} → here` : direction === "out" ? `here → ${name}` : name;
  const service = [protocol, Array.isArray(ports) ? ports.join(", ") : ""].filter(Boolean).join(" ");
  return service === "" ? way : `${way}, ${service}`;
}

function dropRow([reason]: readonly [string, number]): Row<readonly [string, number]> {
  const { element, value } = makeFact(reason);
  return { element, show: ([, count]) => setText(value, String(count)) };
}

function flowRow(): Row<FlowStatus> {
  const number = "number";
  const { row, cells } = makeRow(
    ...[
      ["", ""],
      ["Program", ""],
      ["Rule", ""],
    ].map(([label, name]) => [label!, name!] as const),
    ...["Received", "Sent", "Age"].map((label) => [label, number] as const),
  );
  const [flow, program, rule, received, sent, age] = cells;
  return {
    element: row,
    show: (status) => {
      setText(flow!, flowText(status));
      setText(program!, programText(status));
      setText(rule!, placeText(status.rule) || UNKNOWN);
      setText(received!, bytes(status.rxBytes));
      setText(sent!, bytes(status.txBytes));
      setText(
        age!,
        `${duration(status.ageS)}${status.idleS >= IDLE_SHOWN_S ? `, idle ${duration(status.idleS)}` : ""}`,
      );
    },
  };
}

/** `here :51514 → bob.pilot :443 tcp`. */
function flowText({ peer, protocol, direction, localPort, remotePort }: FlowStatus): string {
  const here = `here${localPort === null ? "" : `:${localPort}`}`;
  const there = `${peerName(peer)}${remotePort === null ? "" : `:${remotePort}`}`;
  return `${protocol} ${direction === "in" ? `${there} → ${here}` : `${here} → ${there}`}`;
}

function programText({ program }: FlowStatus): string {
  if (program === null) return UNKNOWN;
  const who = program.name === null ? `user ${program.uid}` : `${program.name} (${program.pid})`;
  return program.unit === null ? who : `${who}, ${program.unit}`;
}

function placeText(rule: unknown): string {
  const place = rule as PolicyPlace | null | undefined;
  return place ? `${place.file}:${place.line}` : "";
}

function eventRow({ at, event, facts }: LiveEvent): Row<LiveEvent> {
  const element = make(
    "li",
    "",
    timeOf(at),
    make("span", "badge", event),
    make("span", "", describeEvent(event, facts)),
  );
  return { element, show: () => undefined }; // what happened does not change any more
}

function timeOf(at: string): HTMLElement {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  const element = make("time", "", isToday ? CLOCK.format(date) : DAY_AND_CLOCK.format(date));
  element.dateTime = at;
  return element;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
const DAY_AND_CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short", hourCycle: "h23" });
const IDLE_SHOWN_S = 10;
