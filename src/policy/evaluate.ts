/**
 * The meaning of a policy, said as plainly as it can be: look at one rule after the other. The compiled form must always
 * give the same answer; a policy's own tests are answered here.
 */
import type { WallClock } from "../base/instant.ts";
import { networkId, nodeId } from "../wire/ids.ts";
import { type FlowFacts, type PolicyTest, protocolNumber, type Rule, type Selector } from "./rule.ts";
import { type OwnerSelector, type SocketOwner, selectsOwner } from "./socket-owner.ts";

/** Index of the rule that decides; undefined: none matches, which denies. */
export function firstMatch(rules: readonly Rule[], flow: FlowFacts, now: WallClock): number | undefined {
  const index = rules.findIndex((rule) => matches(rule, flow, now));
  return index < 0 ? undefined : index;
}

export interface TestFailure {
  readonly test: PolicyTest;
  /** What decided otherwise; undefined: no rule matched. */
  readonly rule: Rule | undefined;
}

/** `peerOf` knows a peer's other names, so that a rule by key holds in a test by name. */
export function failedTests(
  rules: readonly Rule[],
  tests: readonly PolicyTest[],
  peerOf: (selector: Selector) => PeerFacts | undefined,
  now: WallClock,
): TestFailure[] {
  return tests.flatMap((test) => {
    const index = firstMatch(rules, factsOf(test, peerOf(test.peer)), now);
    const rule = index === undefined ? undefined : rules[index];
    return (rule?.action ?? "deny") === test.expected ? [] : [{ test, rule }];
  });
}

export type PeerFacts = Pick<FlowFacts, "node" | "name" | "fingerprint" | "tags">;

function matches(rule: Rule, flow: FlowFacts, now: WallClock): boolean {
  if (rule.until !== undefined && rule.until <= now) return false;
  if (rule.direction !== flow.direction) return false;
  if (rule.protocol !== "any" && protocolNumber(rule.protocol) !== flow.protocol) return false;
  if (rule.ports?.every((range) => flow.port < range.first || flow.port > range.last)) return false;
  return selects(rule.peer, flow) && (rule.owner === undefined || selectsOwner(rule.owner, flow.owner));
}

function selects(selector: Selector, flow: FlowFacts): boolean {
  switch (selector.kind) {
    case "trusted":
      return true;
    case "name":
      return flow.name === selector.name;
    case "address":
      return flow.node === selector.address.node && flow.network === selector.address.network;
    case "network":
      return flow.network === selector.network;
    case "key":
      return flow.fingerprint === selector.fingerprint;
    case "tag":
      return flow.tags.includes(selector.tag);
  }
}

/** A peer that is not known is one of which only what the test says is true. */
function factsOf(test: PolicyTest, peer: PeerFacts | undefined): FlowFacts {
  const { direction, port, peer: selector } = test;
  return {
    direction,
    protocol: test.protocol === "any" ? 0 : protocolNumber(test.protocol),
    port,
    node: selector.kind === "address" ? selector.address.node : (peer?.node ?? nodeId(0)),
    network:
      selector.kind === "address"
        ? selector.address.network
        : selector.kind === "network"
          ? selector.network
          : networkId(0),
    name: selector.kind === "name" ? selector.name : peer?.name,
    fingerprint: selector.kind === "key" ? selector.fingerprint : peer?.fingerprint,
    tags: [...(peer?.tags ?? []), ...(selector.kind === "tag" ? [selector.tag] : [])],
    owner: test.owner && ownerOf(test.owner),
  };
}

/** Somebody of whom only this is known. */
function ownerOf(selector: OwnerSelector): SocketOwner {
  return {
    uid: selector.kind === "user" ? selector.uid : NOBODY,
    cgroup: selector.kind === "unit" ? `/${selector.unit}` : selector.kind === "cgroup" ? selector.path : undefined,
    programs: selector.kind === "group" ? [{ pid: 0, name: "", groups: [selector.gid], cgroup: undefined }] : [],
  };
}

/** No user has this number. */
const NOBODY = -1;
