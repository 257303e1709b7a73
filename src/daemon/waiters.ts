/** Promises for things that come later as events. Key: what is waited for. Bound: the control server's open requests. */
export class Waiters<K, V> {
  readonly #waiting = new Map<K, Set<(value: V) => void>>();

  /** The value, or undefined when it did not come in time. */
  wait(key: K, timeoutMs: number, signal: AbortSignal): Promise<V | undefined> {
    return new Promise((resolve) => {
      const group = this.#waiting.get(key) ?? new Set();
      this.#waiting.set(key, group);
      const finish = (value: V | undefined) => {
        clearTimeout(timer);
        signal.removeEventListener("abort", giveUp);
        group.delete(finish);
        if (group.size === 0) this.#waiting.delete(key);
        resolve(value);
      };
      const giveUp = () => finish(undefined);
      const timer = setTimeout(giveUp, Math.max(0, timeoutMs));
      signal.addEventListener("abort", giveUp, { once: true });
      group.add(finish);
    });
  }

  settle(key: K, value: V): void {
    for (const finish of [...(this.#waiting.get(key) ?? [])]) finish(value);
  }
}
