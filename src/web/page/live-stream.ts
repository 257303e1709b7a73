/**
 * The page's line to its server: a stream of server-sent events, read with `fetch` because a token is sent along that must not
 * stand in an address. It comes back by itself, at first at once and then every few seconds, until the token is refused.
 */
import type { Problem } from "../../control/api.ts";
import type { Hello, View } from "../view.ts";

export interface LiveHandlers {
  hello(hello: Hello): void;
  view(view: View): void;
  /** `isFinal`: the token is no good, and nothing more is tried. */
  lost(problem: Problem, isFinal: boolean): void;
}

/** Settles when `signal` aborts or the token is refused. */
export async function follow(token: string, handlers: LiveHandlers, signal: AbortSignal): Promise<void> {
  let waitMs = FIRST_WAIT_MS;
  while (!signal.aborted) {
    const problem = await readOnce(token, handlers, signal, () => {
      waitMs = FIRST_WAIT_MS;
    });
    if (signal.aborted) return;
    const isFinal = FINAL.has(problem.code);
    handlers.lost(problem, isFinal);
    if (isFinal) return;
    await pause(waitMs, signal);
    waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
  }
}

/** The problem that a refusal of the server names. */
export async function problemOf(response: Response): Promise<Problem> {
  try {
    return ((await response.json()) as { error: Problem }).error;
  } catch {
    return UNREADABLE;
  }
}

/** Until it ends; why it did. */
async function readOnce(
  token: string,
  handlers: LiveHandlers,
  signal: AbortSignal,
  onMessage: () => void,
): Promise<Problem> {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const response = await fetch("/api/live", {
      headers: { authorization: `Bearer ${token}` },
      cache: "no-store",
      signal: AbortSignal.any([signal, silence.signal]),
    });
    if (!response.ok || response.body === null) return await problemOf(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return GONE;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      const messages = (waiting + value).split("\n\n");
      waiting = messages.pop()!;
      for (const message of messages) hand(message, handlers);
      onMessage();
    }
  } catch {
    return GONE; // refused, broken or silent: all that can be done is to try again
  } finally {
    clearTimeout(timer);
  }
}

/** `event: name`, a line feed, `data: ` and one line of JSON; comments only say that the server is there. */
function hand(message: string, handlers: LiveHandlers): void {
  const [, event, data] = /^event: (\w+)\ndata: (.*)$/.exec(message) ?? [];
  if (event === "hello") handlers.hello(JSON.parse(data!) as Hello);
  if (event === "view") handlers.view(JSON.parse(data!) as View);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

const GONE: Problem = {
  code: "page_server_gone",
  message: "The program behind this page does not answer",
  hint: "It is tried again by itself. If pilot-tun web was ended, start it again and open the address that it gives.",
};
const UNREADABLE: Problem = { ...GONE, code: "bad_reply", message: "The program behind this page answers oddly" };
const FINAL: ReadonlySet<string> = new Set(["token_missing", "token_wrong"]);
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 4_000;
/** The server says something every five seconds. */
const SILENCE_MS = 15_000;
