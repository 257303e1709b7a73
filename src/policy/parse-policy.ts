/**
 * Policy text → rules and tests, or every problem at once, each with its file, line and column.
 *
 *   default deny
 *   allow|deny in|out tcp|udp|icmp|any [PORTS] from|to SELECTOR [until DATE | for DURATION]
 *   test allow|deny in|out tcp|udp|icmp|any [PORT] from|to SELECTOR
 *
 * A word that cannot be enforced here is refused and never passed over: a limit that is believed and not kept is worse
 * than none. Never throws, whatever the text is.
 */

import type { WallClock } from "../base/instant.ts";
import { nearestWord } from "../base/nearest-word.ts";
import { parsePilotAddress } from "../wire/address.ts";
import { networkId } from "../wire/ids.ts";
import { parseDate, parseRuleDuration } from "./moments.ts";
import type { Direction, PolicyTest, PortRange, Rule, RuleProtocol, Selector, SourcePosition } from "./rule.ts";
import { type Word, wordsOf } from "./words.ts";

export interface PolicySource {
  /** As it shall be named to people. */
  readonly file: string;
  readonly text: string;
  /** When it was last written: what `for` counts from. */
  readonly writtenAt: WallClock;
}

export interface PolicyProblem extends SourcePosition {
  readonly message: string;
  /** What would be right. */
  readonly hint: string;
}

export interface ParsedPolicy {
  readonly rules: readonly Rule[];
  readonly tests: readonly PolicyTest[];
  /** Not empty: nothing of it may be put to use. */
  readonly problems: readonly PolicyProblem[];
}

/** The sources are one list of rules, in the order given. */
export function parsePolicy(sources: readonly PolicySource[]): ParsedPolicy {
  const rules: Rule[] = [];
  const tests: PolicyTest[] = [];
  const problems: PolicyProblem[] = [];
  for (const source of sources) {
    source.text.split(/\r\n|\r|\n/).forEach((line, index) => {
      const parser = new LineParser(source, line, index + 1, problems);
      const parsed = parser.parse();
      if (parsed === undefined) return;
      if ("expected" in parsed) tests.push(parsed);
      else rules.push(parsed);
    });
  }
  return { rules, tests, problems };
}

/** What a selector is written like, for hints. */
export const SELECTOR_FORMS = "trusted, a name (bob), a Pilot address (0:0000.0000.0007), network:N or key:SHA256:…";

/** What both kinds of line have in common. */
interface Head {
  readonly verb: "allow" | "deny";
  readonly direction: Direction;
  readonly protocol: RuleProtocol;
  readonly ports: readonly PortRange[] | undefined;
  readonly peer: Selector;
}

class LineParser {
  readonly #source: PolicySource;
  readonly #line: string;
  readonly #number: number;
  readonly #problems: PolicyProblem[];
  readonly #words: Word[];
  #at = 0;

  constructor(source: PolicySource, line: string, number: number, problems: PolicyProblem[]) {
    this.#source = source;
    this.#line = line;
    this.#number = number;
    this.#problems = problems;
    this.#words = wordsOf(line);
  }

  parse(): Rule | PolicyTest | undefined {
    const first = this.#peek();
    switch (first?.text) {
      case undefined:
        return undefined;
      case "default":
        return this.#parseDefault();
      case "test":
        return this.#parseTest();
      default:
        return this.#parseRule();
    }
  }

  #parseDefault(): undefined {
    this.#at++;
    const word = this.#choice(["deny"], "after default");
    if (word === undefined) return undefined;
    this.#expectEnd();
    return undefined;
  }

  #parseRule(): Rule | undefined {
    const head = this.#parseHead(["allow", "deny", "default", "test"]);
    if (head === undefined) return undefined;
    const until = this.#parseEnd();
    if (until === "problem") return undefined;
    const { verb, ...rest } = head;
    return { action: verb, ...rest, until, ...this.#origin() };
  }

  #parseTest(): PolicyTest | undefined {
    this.#at++;
    const head = this.#parseHead(["allow", "deny"]);
    if (head === undefined || !this.#expectEnd()) return undefined;
    const { verb, ports, ...rest } = head;
    const needsPort = head.protocol === "tcp" || head.protocol === "udp";
    const port = ports?.[0];
    const isOnePort = ports?.length === 1 && port!.first === port!.last;
    if (needsPort !== isOnePort || head.protocol === "any") {
      this.#problem(this.#words[0]!, "A test speaks of one flow", "Write tcp PORT, udp PORT or icmp, with one port.");
      return undefined;
    }
    return { expected: verb, ...rest, port: port?.first ?? 0, ...this.#origin() };
  }

  #parseHead(verbs: readonly string[]): Head | undefined {
    const verb = this.#choice(verbs, "at the start of a rule") as Head["verb"] | undefined;
    const direction = verb && (this.#choice(["in", "out"], `after ${verb}`) as Direction | undefined);
    const protocol = direction && (this.#choice(PROTOCOLS, `after ${direction}`) as RuleProtocol | undefined);
    if (verb === undefined || direction === undefined || protocol === undefined) return undefined;
    const preposition = direction === "in" ? "from" : "to";
    const ports = this.#parsePorts(protocol, preposition);
    if (ports === "problem" || this.#choice([preposition], `in a rule for ${direction}`) === undefined)
      return undefined;
    const peer = this.#parseSelector(preposition);
    return peer && { verb, direction, protocol, ports, peer };
  }

  #parsePorts(protocol: RuleProtocol, preposition: string): readonly PortRange[] | undefined | "problem" {
    const word = this.#peek();
    if (word === undefined || !/^[\d,-]+$/.test(word.text)) return undefined;
    if (protocol !== "tcp" && protocol !== "udp") {
      this.#problem(
        word,
        `${protocol} has no ports`,
        `Write tcp or udp, or leave the ports out: ${protocol} ${preposition} …`,
      );
      return "problem";
    }
    this.#at++;
    const ranges = word.text.split(",").map(parseRange);
    if (ranges.every((range) => range !== undefined)) return ranges;
    this.#problem(
      word,
      `${quoted(word.text)} is not a list of ports`,
      "Write ports from 0 to 65535: 80 or 80,443 or 8000-8099.",
    );
    return "problem";
  }

  #parseSelector(preposition: string): Selector | undefined {
    const word = this.#peek();
    if (word === undefined) {
      this.#problem(this.#end(), `A peer is missing after ${preposition}`, `Write ${SELECTOR_FORMS}.`);
      return undefined;
    }
    this.#at++;
    const parsed = parseSelector(word.text);
    if ("kind" in parsed) return parsed;
    this.#problem(word, parsed.message, parsed.hint);
    return undefined;
  }

  /** `until DATE`, `for DURATION` or nothing. */
  #parseEnd(): WallClock | undefined | "problem" {
    const word = this.#peek();
    if (word === undefined) return undefined;
    if (this.#choice(["until", "for"], "after the peer") === undefined) return "problem";
    const value = this.#peek();
    this.#at++;
    const isDate = word.text === "until";
    const forms = isDate ? "until 2030-12-31 or until 2030-12-31T18:00Z" : "for 30m, for 2h or for 7d";
    const until = value && (isDate ? parseDate(value.text) : parseRuleDuration(value.text, this.#source.writtenAt));
    if (until === undefined) {
      const what = value === undefined ? "Nothing" : quoted(value.text);
      this.#problem(value ?? this.#end(), `${what} is not a ${isDate ? "date" : "duration"}`, `Write ${forms}.`);
      return "problem";
    }
    return this.#expectEnd() ? until : "problem";
  }

  #expectEnd(): boolean {
    const word = this.#peek();
    if (word === undefined) return true;
    this.#problem(word, ...unexpected(word.text, [], "here, where the line should end"));
    return false;
  }

  #choice(allowed: readonly string[], where: string): string | undefined {
    const word = this.#peek();
    if (word === undefined) {
      this.#problem(this.#end(), `A word is missing ${where}`, `Write ${either(allowed)}.`);
      return undefined;
    }
    this.#at++;
    if (allowed.includes(word.text)) return word.text;
    this.#problem(word, ...unexpected(word.text, allowed, where));
    return undefined;
  }

  #peek(): Word | undefined {
    return this.#words[this.#at];
  }

  #end(): Word {
    return { text: "", column: this.#line.trimEnd().length + 1 };
  }

  #origin(): { source: SourcePosition; text: string } {
    const words = this.#words.map((word) => word.text);
    return { source: this.#position(this.#words[0]!), text: words.join(" ") };
  }

  #position(word: Word): SourcePosition {
    return { file: this.#source.file, line: this.#number, column: word.column };
  }

  #problem(word: Word, message: string, hint: string): void {
    if (this.#problems.length < MAX_PROBLEMS) this.#problems.push({ ...this.#position(word), message, hint });
  }
}

type BadSelector = { readonly message: string; readonly hint: string };

function parseSelector(text: string): Selector | BadSelector {
  if (text === "trusted") return { kind: "trusted" };
  const colon = text.indexOf(":");
  const prefix = colon < 0 ? undefined : text.slice(0, colon);
  if (prefix === "network") return parseNetwork(text.slice(colon + 1));
  if (prefix === "key") return parseKey(text.slice(colon + 1));
  const unsupported = UNSUPPORTED[prefix ?? text];
  if (unsupported !== undefined)
    return { message: `${quoted(prefix ?? text)} is not supported: ${unsupported}`, hint: `Write ${SELECTOR_FORMS}.` };
  if (prefix !== undefined && /^\d+$/.test(prefix)) {
    const parsed = parsePilotAddress(text);
    if (parsed.kind === "address") return parsed;
    return {
      message: `${quoted(text)} is not a Pilot address: ${parsed.reason}`,
      hint: "For example 0:0000.0000.0007.",
    };
  }
  const name = text.toLowerCase().replace(/\.pilot$/, "");
  if (/^(?!-)[a-z0-9-]{1,63}$(?<!-)/.test(name) && !/^\d+$/.test(name)) return meantName(name);
  const near = nearestWord(text, ["trusted"]);
  const hint = near === undefined ? `Write ${SELECTOR_FORMS}.` : `Did you mean ${near}?`;
  return { message: `${quoted(text)} names no peer`, hint };
}

/** A slip in `trusted` must not become a rule about a peer that nobody knows. */
function meantName(name: string): Selector | BadSelector {
  if (nearestWord(name, ["trusted"]) === undefined && name !== "any" && name !== "all") return { kind: "name", name };
  return {
    message: `${quoted(name)} could be taken for trusted`,
    hint: "Did you mean trusted? For a peer of that name, write its Pilot address.",
  };
}

function parseNetwork(text: string): Selector | BadSelector {
  const number = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (number <= 0xffff) return { kind: "network", network: networkId(number) };
  return {
    message: `${quoted(text)} is not a network's number`,
    hint: "Write a number from 0 to 65535, for example network:1.",
  };
}

function parseKey(text: string): Selector | BadSelector {
  if (/^SHA256:[A-Za-z0-9+/]{43}$/.test(text)) return { kind: "key", fingerprint: text };
  return {
    message: `${quoted(text)} is not a key's fingerprint`,
    hint: "Copy it from pilot-tun trust ls: key:SHA256: and 43 characters.",
  };
}

function parseRange(text: string): PortRange | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = Number(match[2] ?? match[1]);
  return first <= last && last <= 0xffff ? { first, last } : undefined;
}

function unexpected(text: string, allowed: readonly string[], where: string): [message: string, hint: string] {
  const unsupported = UNSUPPORTED[text];
  if (unsupported !== undefined) return [`${quoted(text)} is not supported: ${unsupported}`, "Leave it out."];
  const near = nearestWord(text, allowed);
  if (near !== undefined) return [`Unknown word ${quoted(text)} ${where}`, `Did you mean ${near}?`];
  return [
    `Unknown word ${quoted(text)} ${where}`,
    allowed.length === 0 ? "Leave it out." : `Write ${either(allowed)}.`,
  ];
}

function either(words: readonly string[]): string {
  return words.join(" or ");
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 80));
}

const PROTOCOLS: readonly RuleProtocol[] = ["tcp", "udp", "icmp", "any"];
const MAX_PROBLEMS = 1_000;

/** Words of which operators may believe that they work, and why they do not. Without a prototype: text is any text. */
const UNSUPPORTED: Readonly<Record<string, string | undefined>> = Object.assign(Object.create(null), {
  limit: "rates are not limited per rule",
  budget: "bytes are not counted per rule",
  flows: "flows are not counted per rule",
  via: "a rule does not choose the path",
  user: "a packet at the interface does not tell whose socket sent it",
  group: "a packet at the interface does not tell whose socket sent it",
  cgroup: "a packet at the interface does not tell whose socket sent it",
  unit: "a packet at the interface does not tell whose socket sent it",
  tag: "registries give no tags that could be relied on",
  chain: "there is no chain of delegation to look at",
});
