/** Flows as the local API shows them. */
import type { PeerIdentity } from "../control/api.ts";
import type { FlowStatus, ProgramStatus } from "../control/policy-api.ts";
import type { Engine } from "../engine/engine.ts";
import { now } from "../io/clock.ts";
import type { Flow } from "../policy/flow-table.ts";
import { type SocketOwner, unitOf, workerOf } from "../policy/socket-owner.ts";
import type { OverlayPrefix } from "../wire/address.ts";
import type { NodeId } from "../wire/ids.ts";
import type { FlowPlace } from "./socket-owners.ts";

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
    program: programStatus(flow.owner),
  };
}

export function programStatus(owner: SocketOwner | undefined): ProgramStatus | null {
  if (owner === undefined) return null;
  const program = workerOf(owner);
  const unit = unitOf(program?.cgroup) ?? unitOf(owner.cgroup) ?? null;
  return { uid: owner.uid, pid: program?.pid ?? null, name: program?.name ?? null, unit };
}

/** Where the local end of a flow is to be looked for. */
export function placeOf(flow: Flow, prefix: OverlayPrefix): FlowPlace {
  const address = (tail: Uint8Array) => {
    const bytes = new Uint8Array(16);
    bytes.set(prefix.bytes.subarray(0, 4));
    bytes.set(tail, 4);
    return bytes;
  };
  const isEcho = flow.protocol === 58;
  return {
    protocol: flow.protocol,
    local: address(flow.local),
    remote: address(flow.remote),
    // The "ports" of an echo are its identifier alone.
    localPort: isEcho ? flow.remotePort : flow.localPort,
    remotePort: isEcho ? 0 : flow.remotePort,
    direction: flow.beganRemotely ? "in" : "out",
  };
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = { 6: "tcp", 17: "udp", 58: "icmp" };
