/**
 * Policy text → rules and tests, or every problem at once, each with its file, line and column.
 *
 *   default deny
 *   allow|deny in|out tcp|udp|icmp|any [PORTS] from|to SELECTOR [by OWNER] [until DATE | for DURATION]
 *     [limit RATE] [budget BYTES/TIME] [flows N/TIME] [via direct|relay]
 *   test allow|deny in|out tcp|udp|icmp|any [PORT] from|to SELECTOR [by OWNER]
 *
 * What follows the peer may come in any order, each once. A word that cannot be enforced is refused and never passed
 * over: a limit that is believed and not kept is worse than none. Never throws, whatever the text is.
 */

import type { WallClock } from "../base/instant.ts";
import { nearestWord, nearestWords } from "../base/nearest-word.ts";
import { parseDate, parseRuleDuration } from "./moments.ts";
import {
  type Accounts,
  type BadWord,
  OWNER_FORMS,
  parseOwner,
  parseSelector,
  SELECTOR_FORMS,
} from "./parse-selector.ts";
import { parseBytesPerTime, parseCountPerTime, parseRate, type Quota } from "./quantities.ts";
import type {
  Direction,
  PolicyTest,
  PortRange,
  Rule,
  RuleProtocol,
  Selector,
  SourcePosition,
  Terms,
  Way,
} from "./rule.ts";
import type { OwnerSelector } from "./socket-owner.ts";
import { either, quoted, type Word, wordsOf } from "./words.ts";

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

/** The sources are one list of rules, in the order given. Names of users and groups are looked up in `accounts`. */
export function parsePolicy(sources: readonly PolicySource[], accounts: Accounts): ParsedPolicy {
  const steps = parseInSteps(sources, accounts, Number.POSITIVE_INFINITY);
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value;
}

/** The same, giving way after every so many lines: a long policy is read beside other work. */
export function* parseInSteps(
  sources: readonly PolicySource[],
  accounts: Accounts,
  linesAtOnce: number,
): Generator<void, ParsedPolicy> {
  const rules: Rule[] = [];
  const tests: PolicyTest[] = [];
  const problems: PolicyProblem[] = [];
  for (const source of sources) {
    for (const [index, line] of source.text.split(/\r\n|\r|\n/).entries()) {
      const parsed = new LineParser(source, line, index + 1, problems, accounts).parse();
      if (parsed !== undefined && "expected" in parsed) tests.push(parsed);
      else if (parsed !== undefined) rules.push(parsed);
      if (index % linesAtOnce === linesAtOnce - 1) yield;
    }
  }
  return { rules, tests, problems };
}

/** What both kinds of line have in common. */
interface Head {
  readonly verb: "allow" | "deny";
  readonly direction: Direction;
  readonly protocol: RuleProtocol;
  readonly ports: readonly PortRange[] | undefined;
  readonly peer: Selector;
}

/** What may follow the peer. */
interface Tail {
  owner?: OwnerSelector;
  until?: WallClock;
  limitBytesPerS?: number;
  budget?: Quota;
  flows?: Quota;
  via?: Way;
}

class LineParser {
  readonly #source: PolicySource;
  readonly #line: string;
  readonly #number: number;
  readonly #problems: PolicyProblem[];
  readonly #words: Word[];
  readonly #accounts: Accounts;
  #at = 0;

  constructor(source: PolicySource, line: string, number: number, problems: PolicyProblem[], accounts: Accounts) {
    this.#source = source;
    this.#line = line;
    this.#number = number;
    this.#problems = problems;
    this.#accounts = accounts;
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
    const tail = this.#parseTail(TAIL_OF_RULES, head);
    if (tail === undefined) return undefined;
    const { verb, ...rest } = head;
    return { action: verb, ...rest, owner: tail.owner, until: tail.until, terms: termsOf(tail), ...this.#origin() };
  }

  #parseTest(): PolicyTest | undefined {
    this.#at++;
    const head = this.#parseHead(["allow", "deny"]);
    const tail = head && this.#parseTail(TAIL_OF_TESTS, head);
    if (head === undefined || tail === undefined) return undefined;
    const { verb, ports, ...rest } = head;
    const needsPort = head.protocol === "tcp" || head.protocol === "udp";
    const port = ports?.[0];
    const isOnePort = ports?.length === 1 && port!.first === port!.last;
    if (needsPort !== isOnePort || head.protocol === "any") {
      this.#problem(this.#words[0]!, "A test speaks of one flow", "Write tcp PORT, udp PORT or icmp, with one port.");
      return undefined;
    }
    return { expected: verb, ...rest, port: port?.first ?? 0, owner: tail.owner, ...this.#origin() };
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

  /** All that follows the peer; undefined when something in it is wrong. */
  #parseTail(allowed: readonly string[], head: Head): Tail | undefined {
    const tail: Tail = {};
    const seen = new Set<string>();
    for (let word = this.#peek(); word !== undefined; word = this.#peek()) {
      const name = this.#choice(allowed, "after the peer");
      if (name === undefined || !this.#fits(word, name, seen, head) || !this.#parseOption(name, tail)) return undefined;
      seen.add(name);
    }
    return tail;
  }

  #fits(word: Word, name: string, seen: ReadonlySet<string>, head: Head): boolean {
    const other = name === "until" ? "for" : name === "for" ? "until" : name;
    const before = seen.has(name) ? name : seen.has(other) ? other : undefined;
    if (before !== undefined) {
      this.#problem(word, `${name} comes after ${before === name ? "another" : before}`, "Say it once.");
      return false;
    }
    if (head.verb === "deny" && TERMS.includes(name)) {
      this.#problem(word, `What is denied has no ${name}`, "Leave it out, or write allow.");
      return false;
    }
    if (name === "by" && head.protocol === "icmp" && head.direction === "in") {
      this.#problem(word, "No program answers a ping: the kernel does", "Leave it out.");
      return false;
    }
    return true;
  }

  #parseOption(name: string, tail: Tail): boolean {
    switch (name) {
      case "by":
        return this.#set(tail, "owner", (text) => parseOwner(text, this.#accounts), `Write ${OWNER_FORMS}.`);
      case "until":
        return this.#set(tail, "until", parseDate, "Write until 2030-12-31 or until 2030-12-31T18:00Z.", "a date");
      case "for": {
        const end = (text: string) => parseRuleDuration(text, this.#source.writtenAt);
        return this.#set(tail, "until", end, "Write for 30m, for 2h or for 7d.", "a duration");
      }
      case "limit":
        return this.#set(tail, "limitBytesPerS", parseRate, "Write limit 5MB/s, 500KB/s or 8Mbit/s.", "a rate");
      case "budget":
        return this.#set(
          tail,
          "budget",
          parseBytesPerTime,
          "Write budget 50MB/h or budget 1GB/10m.",
          "bytes in a time",
        );
      case "flows":
        return this.#set(tail, "flows", parseCountPerTime, "Write flows 20/m or flows 100/1h.", "a count in a time");
      default:
        return this.#set(tail, "via", parseWay, "Write via direct or via relay.", "a way");
    }
  }

  /** The word that follows becomes a value of the tail; false when it is none. */
  #set<K extends keyof Tail>(
    tail: Tail,
    field: K,
    parse: (text: string) => NonNullable<Tail[K]> | BadWord | undefined,
    hint: string,
    what = "a program",
  ): boolean {
    const word = this.#peek();
    const value = word && parse(word.text);
    if (word !== undefined) this.#at++;
    if (value === undefined) {
      const said = word === undefined ? "Nothing" : quoted(word.text);
      this.#problem(word ?? this.#end(), `${said} is not ${what}`, hint);
    } else if (isBad(value)) {
      this.#problem(word!, value.message, value.hint);
    } else {
      tail[field] = value;
      return true;
    }
    return false;
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

function parseRange(text: string): PortRange | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = Number(match[2] ?? match[1]);
  return first <= last && last <= 0xffff ? { first, last } : undefined;
}

function parseWay(text: string): Way | BadWord | undefined {
  if (text === "direct" || text === "relay") return text;
  const near = nearestWord(text, ["direct", "relay"]);
  return near === undefined ? near : { message: `${quoted(text)} is not a way`, hint: `Did you mean ${near}?` };
}

function termsOf({ limitBytesPerS, budget, flows, via }: Tail): Terms | undefined {
  const hasTerms = [limitBytesPerS, budget, flows, via].some((term) => term !== undefined);
  return hasTerms ? { limitBytesPerS, budget, flows, via } : undefined;
}

function isBad(value: unknown): value is BadWord {
  return typeof value === "object" && value !== null && "hint" in value;
}

function unexpected(text: string, allowed: readonly string[], where: string): [message: string, hint: string] {
  const near = nearestWords(text, allowed);
  if (near.length > 0) return [`Unknown word ${quoted(text)} ${where}`, `Did you mean ${either(near)}?`];
  return [
    `Unknown word ${quoted(text)} ${where}`,
    allowed.length === 0 ? "Leave it out." : `Write ${either(allowed)}.`,
  ];
}

const PROTOCOLS: readonly RuleProtocol[] = ["tcp", "udp", "icmp", "any"];
const TERMS: readonly string[] = ["limit", "budget", "flows", "via"];
const TAIL_OF_RULES: readonly string[] = ["by", "until", "for", ...TERMS];
const TAIL_OF_TESTS: readonly string[] = ["by"];
const MAX_PROBLEMS = 1_000;
