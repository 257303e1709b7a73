/** Flows as the local API shows them. */
import type { PeerIdentity } from "../control/api.ts";
import type { FlowStatus } from "../control/policy-api.ts";
import type { Engine } from "../engine/engine.ts";
import { now } from "../io/clock.ts";
import type { Flow } from "../policy/flow-table.ts";
import type { NodeId } from "../wire/ids.ts";

export interface FlowStatusParts {
  readonly engine: Engine;
  identity(node: NodeId): PeerIdentity;
}

export function flowStatuses(flows: readonly Flow[], { engine, identity }: FlowStatusParts): FlowStatus[] {
  const nowS = engine.steadyS(now());
  return flows.flatMap((flow) => {
    const node = engine.admission.nodeOf(flow);
    return node === undefined ? [] : [flowStatus(flow, identity(node), engine, nowS)];
  });
}

function flowStatus(flow: Flow, peer: PeerIdentity, engine: Engine, nowS: number): FlowStatus {
  const rule = engine.admission.policy.ruleOf(flow.verdict);
  const hasPorts = flow.protocol === 6 || flow.protocol === 17;
  return {
    id: flow.id,
    peer,
    protocol: PROTOCOL_NAMES[flow.protocol] ?? String(flow.protocol),
    direction: flow.beganRemotely ? "in" : "out",
    localPort: hasPorts ? flow.localPort : null,
    remotePort: hasPorts ? flow.remotePort : null,
    rule: rule === undefined ? null : { file: rule.source.file, line: rule.source.line },
    ageS: Math.max(0, nowS - flow.startedS),
    idleS: Math.max(0, nowS - flow.lastSeenS),
    txBytes: flow.sentBytes,
    rxBytes: flow.receivedBytes,
  };
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = { 6: "tcp", 17: "udp", 58: "icmp" };
