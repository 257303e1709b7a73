/** The words of a rule that say whom it speaks of: peers after `from` and `to`, local programs after `by`. */
import { nearestWord } from "../base/nearest-word.ts";
import { parsePilotAddress } from "../wire/address.ts";
import { networkId } from "../wire/ids.ts";
import type { Selector } from "./rule.ts";
import { type OwnerSelector, UNIT } from "./socket-owner.ts";
import { quoted } from "./words.ts";

/** What a selector is written like, for hints. */
export const SELECTOR_FORMS =
  "trusted, a name (bob), a Pilot address (0:0000.0000.0007), network:N, tag:WORD or key:SHA256:…";
export const OWNER_FORMS = "user:NAME, group:NAME, unit:NAME.service or cgroup:/PATH";

/** The users and groups of this host. */
export interface Accounts {
  userId(name: string): number | undefined;
  groupId(name: string): number | undefined;
  /** For suggestions; need not be complete. */
  readonly userNames: readonly string[];
  readonly groupNames: readonly string[];
  /** Why rules cannot know programs by this here, and what would help; undefined: they can. */
  obstacleTo(kind: "group" | "unit"): BadWord | undefined;
}

export type BadWord = { readonly message: string; readonly hint: string };

export function parseOwner(text: string, accounts: Accounts): OwnerSelector | BadWord {
  const colon = text.indexOf(":");
  const kind = colon < 0 ? text : text.slice(0, colon);
  const value = text.slice(colon + 1);
  if (colon < 0 || value === "" || !OWNER_KINDS.includes(kind)) {
    const near = nearestWord(kind, OWNER_KINDS);
    const hint = near === undefined ? `Write ${OWNER_FORMS}.` : `Did you mean ${near}:${colon < 0 ? "…" : value}?`;
    return { message: `${quoted(text)} names no local program`, hint };
  }
  switch (kind) {
    case "user":
      return account("user", value, accounts.userId(value), accounts.userNames);
    case "group":
      return accounts.obstacleTo("group") ?? account("group", value, accounts.groupId(value), accounts.groupNames);
    case "unit":
      return accounts.obstacleTo("unit") ?? parseUnit(value);
    default:
      return accounts.obstacleTo("unit") ?? parseCgroup(value);
  }
}

/** A number is taken as it is: accounts may come later, and containers have some that this host does not know. */
function account(
  kind: "user" | "group",
  text: string,
  known: number | undefined,
  names: readonly string[],
): OwnerSelector | BadWord {
  const id = known ?? (/^\d{1,10}$/.test(text) ? Number(text) : Number.NaN);
  if (id < 0xffffffff) return kind === "user" ? { kind, uid: id } : { kind, gid: id };
  const near = nearestWord(text, names);
  return {
    message: `This host has no ${kind} ${quoted(text)}`,
    hint: near === undefined ? `Write a ${kind}'s name or number.` : `Did you mean ${near}?`,
  };
}

function parseUnit(text: string): OwnerSelector | BadWord {
  if (UNIT.test(text)) return { kind: "unit", unit: text };
  const isBare = UNIT.test(`${text}.service`) && !text.includes(".");
  return {
    message: `${quoted(text)} is not the name of a unit that runs programs`,
    hint: isBare
      ? `Did you mean unit:${text}.service?`
      : "Write unit:NAME.service or unit:NAME.scope; for a slice, cgroup:/NAME.slice.",
  };
}

function parseCgroup(text: string): OwnerSelector | BadWord {
  if (/^\/(?:[^/]+\/)*[^/]*$/.test(text) && !/(?:^|\/)\.\.?(?:\/|$)/.test(text)) {
    return { kind: "cgroup", path: text === "/" ? text : text.replace(/\/$/, "") };
  }
  return {
    message: `${quoted(text)} is not the path of a control group`,
    hint: "Write it from the root, as in /proc/PID/cgroup: cgroup:/system.slice/web.service.",
  };
}

export function parseSelector(text: string): Selector | BadWord {
  if (text === "trusted") return { kind: "trusted" };
  const colon = text.indexOf(":");
  const prefix = colon < 0 ? undefined : text.slice(0, colon);
  if (prefix === "network") return parseNetwork(text.slice(colon + 1));
  if (prefix === "key") return parseKey(text.slice(colon + 1));
  if (prefix === "tag") return parseTag(text.slice(colon + 1));
  if (prefix !== undefined && OWNER_KINDS.includes(prefix)) {
    return { message: `${quoted(text)} names a local program, no peer`, hint: `Name a peer first, then: by ${text}.` };
  }
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
  const near = nearestSelector(text, prefix);
  const hint = near === undefined ? `Write ${SELECTOR_FORMS}.` : `Did you mean ${near}?`;
  return { message: `${quoted(text)} names no peer`, hint };
}

/** A slip in `trusted` must not become a rule about a peer that nobody knows. */
function meantName(name: string): Selector | BadWord {
  if (nearestWord(name, ["trusted"]) === undefined && name !== "any" && name !== "all") return { kind: "name", name };
  return {
    message: `${quoted(name)} could be taken for trusted`,
    hint: "Did you mean trusted? For a peer of that name, write its Pilot address.",
  };
}

function parseNetwork(text: string): Selector | BadWord {
  const number = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (number <= 0xffff) return { kind: "network", network: networkId(number) };
  return {
    message: `${quoted(text)} is not a network's number`,
    hint: "Write a number from 0 to 65535, for example network:1.",
  };
}

function parseKey(text: string): Selector | BadWord {
  if (/^SHA256:[A-Za-z0-9+/]{43}$/.test(text)) return { kind: "key", fingerprint: text };
  return {
    message: `${quoted(text)} is not a key's fingerprint`,
    hint: "Copy it from pilot-tun trust ls: key:SHA256: and 43 characters.",
  };
}

function parseTag(text: string): Selector | BadWord {
  if (/^[\w.:/-]{1,32}$/.test(text)) return { kind: "tag", tag: text };
  return {
    message: `${quoted(text)} is not a tag`,
    hint: "Write one tag of at most 32 letters, digits and _ . : / - as in tag:web.",
  };
}

function nearestSelector(text: string, prefix: string | undefined): string | undefined {
  if (prefix === undefined) return nearestWord(text, ["trusted"]);
  const near = nearestWord(prefix, ["network", "key", "tag"]);
  return near && `${near}${text.slice(prefix.length)}`;
}

const OWNER_KINDS: readonly string[] = ["user", "group", "unit", "cgroup"];
