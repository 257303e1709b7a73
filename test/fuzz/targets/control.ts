/** Requests to the local API: a method's name and a JSON body, from anybody who may connect. */
import { PilotError } from "../../../src/base/pilot-error.ts";
import { METHOD_NAMES, prepareCall } from "../../../src/control/requests.ts";
import { demand, FuzzInput, jsonOf, textOf } from "../input.ts";

export function fuzz(data: Uint8Array): void {
  const input = new FuzzInput(data);
  const method = METHOD_NAMES[input.u8()] ?? textOf(input.block());
  const body = jsonOf(input.rest());
  try {
    const call = prepareCall(method, body);
    demand(Number.isFinite(call.deadlineMs) && call.deadlineMs > 0, "a call has a deadline", call.deadlineMs);
  } catch (error) {
    if (!(error instanceof PilotError)) throw error;
    demand(
      error.code === "bad_request" || error.code === "unknown_method",
      "a bad request is named as one",
      error.code,
    );
    demand(error.message !== "" && error.hint !== "", "a refusal says what would be right");
  }
}
