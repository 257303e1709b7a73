/**
 * Errors an operator meets: a stable code for programs, a message for people, and what to do next.
 * Thrown at the edge only; inside the pure middle a failure is a returned value.
 */
import type { ErrorCode } from "./error-code.ts";

export class PilotError extends Error {
  readonly code: ErrorCode;
  /** One sentence that says what to do next. */
  readonly hint: string;

  constructor(code: ErrorCode, message: string, hint: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "PilotError";
    this.code = code;
    this.hint = hint;
  }
}
