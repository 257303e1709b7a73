/** What happens later in a simulated network, in its order. */
export interface QueuedEvent {
  readonly at: number;
  readonly order: number;
  readonly act: () => void;
}

/** By time, and at one time in the order in which they were put in: a binary heap. */
export class EventQueue {
  readonly #events: QueuedEvent[] = [];

  get first(): QueuedEvent | undefined {
    return this.#events[0];
  }

  push(event: QueuedEvent): void {
    const events = this.#events;
    let at = events.push(event) - 1;
    for (let up = (at - 1) >> 1; at > 0 && isBefore(event, events[up]!); up = (at - 1) >> 1) {
      events[at] = events[up]!;
      at = up;
    }
    events[at] = event;
  }

  shift(): void {
    const events = this.#events;
    const moved = events.pop();
    if (moved === undefined || events.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= events.length) break;
      if (child + 1 < events.length && isBefore(events[child + 1]!, events[child]!)) child++;
      if (!isBefore(events[child]!, moved)) break;
      events[at] = events[child]!;
      at = child;
    }
    events[at] = moved;
  }
}

function isBefore(a: QueuedEvent, b: QueuedEvent): boolean {
  return a.at - b.at < 0 || (a.at === b.at && a.order < b.order);
}
