/**
 * Long lists in turns of a moment each, with the packets that came meanwhile in between: ten thousand peers are tens of milliseconds
 * of work, for which no packet should wait.
 */

/** `make` of each, in order. Items that are added meanwhile are not met, nor those that go. */
export async function mapInTurns<T, U>(items: Iterable<T>, make: (item: T) => U): Promise<U[]> {
  const made: U[] = [];
  let turnEndsAt = performance.now() + TURN_MS;
  for (const item of [...items]) {
    made.push(make(item));
    if (made.length % LOOK_EVERY !== 0 || performance.now() < turnEndsAt) continue;
    await new Promise((resolve) => setImmediate(resolve));
    turnEndsAt = performance.now() + TURN_MS;
  }
  return made;
}

/** The text of `JSON.stringify(reply)` in pieces; only lists in the reply itself are long. */
export async function jsonInTurns(reply: object): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  let text = "{";
  for (const [key, value] of Object.entries(reply)) {
    if (value === undefined) continue;
    text += `${text === "{" && pieces.length === 0 ? "" : ","}${JSON.stringify(key)}:`;
    if (!Array.isArray(value)) {
      text += JSON.stringify(value);
      continue;
    }
    text += "[";
    let isFirst = true;
    await mapInTurns(value, (item: unknown) => {
      text += `${isFirst ? "" : ","}${JSON.stringify(item) ?? "null"}`;
      isFirst = false;
      if (text.length < PIECE_CHARACTERS) return;
      pieces.push(Buffer.from(text));
      text = "";
    });
    text += "]";
  }
  pieces.push(Buffer.from(`${text}}`));
  return pieces;
}

/** Less than what a ping over the overlay takes, and a hundredth of what a person notices. */
const TURN_MS = 0.5;
const LOOK_EVERY = 8;
const PIECE_CHARACTERS = 32 * 1024;
