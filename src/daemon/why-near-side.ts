/** The stages of an explanation that this side decides by itself. */
import type { WhyReply } from "../control/why-api.ts";
import type { Engine } from "../engine/engine.ts";
import { type Route, routeTo } from "../host/route.ts";
import { now } from "../io/clock.ts";
import { LOCKED_DOWN, NO_POLICY } from "../policy/policy.ts";
import { permits } from "../trust/lease.ts";
import type { TrustBook } from "../trust/trust-book.ts";
import { formatOverlayAddress } from "../wire/address.ts";
import { type Services, serviceWords } from "../wire/services.ts";
import { type Case, type Failure, flowWord, NO_FLOW, type Outcome, ok, ruleWords } from "./why-case.ts";

export function name({ peer, prefix, network, node }: Case): Outcome {
  return ok(`${peer.pilot}, ${formatOverlayAddress(prefix, { network, node })}`);
}

/** Whose address it is, and whether this host's packets for it come to the daemon. */
export async function address(asked: Case, engine: Engine, tun: string): Promise<Outcome> {
  const { node, network, prefix, self } = asked;
  const changed = engine.problems.get(`key_changed ${node}`);
  if (changed !== undefined) {
    return { side: "remote", code: "key_changed", detail: changed.message, fix: changed.hint };
  }
  const standing = engine.networks.standing(network, node, now());
  if (standing === "no") return notMember(asked);
  const far = formatOverlayAddress(prefix, { network, node });
  return (
    wrongRoute(await routeTo(far), far, formatOverlayAddress(prefix, { network, node: self }), tun) ?? ok(`by ${tun}`)
  );
}

function notMember({ name, network, peer }: Case): Failure {
  const detail = `this node and ${name} are not both in network ${network}`;
  const fix = `Use its address in network 0, ${peer.address}; or see pilot-tun network members ${network}.`;
  return { side: "between", code: "not_member", detail, fix };
}

function wrongRoute(route: Route | undefined, far: string, own: string, tun: string): Failure | undefined {
  if (route === undefined) return undefined; // nobody could be asked
  const fix = "Restart pilot-tun, and see who changes routes and addresses on this host: ip -6 route, ip -6 addr.";
  if (route.device !== tun) {
    const where = route.device === undefined ? "nowhere" : `to ${route.device}`;
    return {
      side: "local",
      code: "no_route",
      detail: `this host sends packets for ${far} ${where}, not to ${tun}`,
      fix,
    };
  }
  if (route.source === own) return undefined;
  const detail = `programs here would send from ${route.source ?? "no address"}, which is not this node's ${own}`;
  return { side: "local", code: "no_address", detail, fix };
}

export function localRule({ name, direction, flow, facts }: Case, { admission: { policy } }: Engine): Outcome {
  const verdict = policy.judge(facts);
  if (verdict === LOCKED_DOWN) return lockedDown();
  if (flow === undefined) return NO_FLOW;
  if (verdict === NO_POLICY) return ok("there is no policy: trusted peers reach every port");
  if (facts.owner === undefined && policy.ownerMatters(facts)) {
    return { state: "unknowable", detail: "rules about users, groups or units decide: it depends on the program" };
  }
  const found = policy.ruleOf(verdict);
  const rule = found && { file: found.source.file, line: found.source.line, text: found.text };
  if (rule !== undefined && policy.allows(verdict)) return { ...ok(`${rule.file}:${rule.line} ${rule.text}`), rule };
  const line = `allow ${direction} ${ruleWords(flow)} ${direction === "in" ? "from" : "to"} ${name}`;
  return rule === undefined ? noMatch(line) : denied(rule, line);
}

function noMatch(line: string): Failure {
  const fix = `Add a line to the policy: ${line}`;
  return { side: "local", code: "policy_no_match", detail: "no rule matches", fix };
}

function denied(rule: NonNullable<WhyReply["rule"]>, line: string): Failure {
  const fix = `Put before ${rule.file}:${rule.line}: ${line}`;
  return { side: "local", code: "policy_denied", detail: `${rule.file}:${rule.line} ${rule.text}`, fix, rule };
}

function lockedDown(): Failure {
  return { side: "local", code: "locked_down", detail: "a lockdown is on", fix: "pilot-tun lockdown --lift" };
}

export function consent({ node, name }: Case, book: TrustBook): Outcome {
  const ask = `pilot-tun trust ask ${name}`;
  switch (book.stateOf(node)) {
    case "mutual":
      return ok("you: yes, it: yes");
    case "lease-ended":
      return ok("you: yes, it: yes; within a lease");
    case "none":
      return { side: "local", code: "not_trusted", detail: "nobody asked", fix: ask };
    case "pending":
      return { side: "local", code: "not_approved", detail: "it asks you", fix: `pilot-tun trust approve ${name}` };
    case "revoked":
      return { side: "local", code: "revoked", detail: "you revoked it", fix: ask };
    case "asked":
      return {
        side: "remote",
        code: "not_answered",
        detail: "you asked, it has not answered",
        fix: "Over there: pilot-tun trust approve",
      };
    case "revoked-by-peer":
      return { side: "remote", code: "revoked_by_peer", detail: "it revoked you", fix: ask };
  }
}

export function lease(asked: Case, { leases }: Engine, book: TrustBook): Outcome {
  const { node, name, direction, flow } = asked;
  const record = book.get(node);
  if (record?.state === "lease-ended") {
    const isTime = record.leaseEnd !== "bytes";
    const detail = isTime ? "its time is over" : "its bytes are used up";
    return { side: "local", code: isTime ? "lease_ended" : "lease_spent", detail, fix: `pilot-tun trust ask ${name}` };
  }
  const limits = leases.limitsOf(node);
  if (limits === undefined) return ok("trust has no limits");
  if (flow !== undefined && !permits(limits, direction, flow.protocol, flow.port)) {
    const isOurs = !permits(record?.lease, direction, flow.protocol, flow.port);
    const services = direction === "in" ? limits.inward : limits.outward;
    const detail = `it lets begin ${serviceWords(services ?? []).join(" ") || "nothing"} ${direction}`;
    return { side: isOurs ? "local" : "remote", code: "lease_port", detail, fix: wider(asked, services ?? [], isOurs) };
  }
  const left = leases.leftBytes(node);
  const words = [
    ...(limits.endsAt === undefined ? [] : [`${timeWords(limits.endsAt - leases.time(now()))} left`]),
    ...(left === undefined ? [] : [`${sizeWords(left)} left`]),
  ];
  return ok(words.join(", ") || "it has no end");
}

/** What widens a lease: the asker asks for more, the one who approved grants more. What is not named again is lost. */
function wider({ name, direction, flow }: Case, services: Services, isOurs: boolean): string {
  const ports = `--ports ${[...serviceWords(services), flowWord(flow!)].join(",")}`;
  if (direction === "in") {
    return isOurs ? `pilot-tun trust approve ${name} ${ports}` : `Over there: pilot-tun trust ask, with ${ports}`;
  }
  return `pilot-tun trust ask ${name} ${ports}, and over there pilot-tun trust approve`;
}

function timeWords(ms: number): string {
  const [size, unit] = (
    [
      [86_400_000, "d"],
      [3_600_000, "h"],
      [60_000, "min"],
    ] as const
  ).find(([one]) => ms >= 2 * one) ?? [1_000, "s"];
  return `${Math.floor(ms / size)} ${unit}`;
}

/** In the units in which leases are written. */
function sizeWords(bytes: number): string {
  const [size, unit] = (
    [
      [1e9, "GB"],
      [1e6, "MB"],
      [1e3, "KB"],
    ] as const
  ).find(([one]) => bytes >= one) ?? [1, "B"];
  return `${Math.floor((bytes / size) * 10) / 10} ${unit}`;
}

/** What the rule grants only in amounts. */
export function budget({ node, flow, facts }: Case, { admission }: Engine): Outcome {
  if (flow === undefined) return NO_FLOW;
  const verdict = admission.policy.judge(facts);
  const found = admission.policy.ruleOf(verdict);
  if (found?.terms === undefined) return ok("no limits");
  const reason = admission.exhaustion(verdict, node, now());
  if (reason === undefined) return ok("within the rule's limits");
  const isBytes = reason === "over-budget";
  const rule = { file: found.source.file, line: found.source.line, text: found.text };
  const place = `${rule.file}:${rule.line}`;
  const detail = `${place} ${rule.text}: ${isBytes ? "its bytes are used up" : "as many flows have begun as it grants"}, for now`;
  const fix = `Wait, or raise the limit in ${place}.`;
  return { side: "local", code: isBytes ? "budget_spent" : "flows_spent", detail, fix, rule };
}
