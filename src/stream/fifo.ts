/**
 * A first-in first-out queue on one array: shifting moves an index, and the array is compacted now and then. An empty queue
 * has no array of its own: an idle stream has several.
 */
export class Fifo<T> {
  #items: T[] = NOTHING;
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    if (this.#items === NOTHING) this.#items = [item];
    else this.#items.push(item);
  }

  peek(): T | undefined {
    return this.#items[this.#head];
  }

  replaceFirst(item: T): void {
    this.#items[this.#head] = item;
  }

  /** Puts an item before the first. */
  unshift(item: T): void {
    if (this.#head === 0) {
      this.#items = [item, ...this.#items];
      return;
    }
    this.#head -= 1;
    this.#items[this.#head] = item;
  }

  shift(): T | undefined {
    if (this.length === 0) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head] = undefined as T;
    this.#head += 1;
    if (this.#head === this.#items.length) this.clear();
    else if (this.#head >= COMPACT_AT && this.#head * 2 >= this.#items.length) this.#compact();
    return item;
  }

  clear(): void {
    this.#items = NOTHING;
    this.#head = 0;
  }

  #compact(): void {
    this.#items = this.#items.slice(this.#head);
    this.#head = 0;
  }
}

const NOTHING: never[] = [];
const COMPACT_AT = 256;
