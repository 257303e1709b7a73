/** Messages between pilot-tun nodes, and the pieces of long packets put together again. */
import { instant } from "../../../src/base/instant.ts";
import { Reassembly } from "../../../src/tunnel/fragments.ts";
import {
  type BridgeMessage,
  classifyBridgePayload,
  encodeBridgeMessage,
  parseBridgeMessage,
} from "../../../src/wire/bridge.ts";
import { encodeLeaseField, parseLeaseField } from "../../../src/wire/lease-field.ts";
import { demand, demandSame, FuzzInput } from "../input.ts";

export function fuzz(data: Uint8Array): void {
  one(data);
  const lease = parseLeaseField(data, 0);
  if (lease !== undefined) demandSame(parseLeaseField(encodeLeaseField(lease), 0), lease, "a lease survives");
  const input = new FuzzInput(data);
  const reassembly = new Reassembly(MAX_PACKET_BYTES);
  let now = 0;
  for (let steps = 0; steps < MAX_STEPS && !input.isEmpty; steps++) {
    now += input.u8() * 20;
    const message = one(input.block());
    if (message?.kind !== "fragment") continue;
    const outcome = reassembly.add(input.below(3), message, instant(now));
    if (outcome.kind !== "packet") continue;
    demand(outcome.packet.length <= MAX_PACKET_BYTES, "no packet is longer than the interface takes");
  }
  demand(reassembly.heldBytes <= MAX_STEPS * MAX_PACKET_BYTES, "what waits is bounded", reassembly.heldBytes);
}

function one(payload: Uint8Array): BridgeMessage | undefined {
  const kind = classifyBridgePayload(payload);
  const message = parseBridgeMessage(payload);
  if (kind !== "message") demand(message === undefined, "only a message reads as one", kind);
  if (message === undefined || message.kind === "unknown") return undefined;
  demandSame(parseBridgeMessage(encodeBridgeMessage(message)), message, "a message survives");
  return message;
}

const MAX_PACKET_BYTES = 1360;
const MAX_STEPS = 64;
