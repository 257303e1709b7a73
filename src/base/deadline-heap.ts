/**
 * Which of many is to be woken first: a binary heap that also finds and moves an entry by its owner.
 * One entry per owner; bounded by the number of owners, who remove themselves.
 */
import type { Deadline } from "./instant.ts";

export class DeadlineHeap<Owner> {
  readonly #entries: Entry<Owner>[] = [];
  readonly #byOwner = new Map<Owner, Entry<Owner>>();

  get size(): number {
    return this.#entries.length;
  }

  first(): { readonly owner: Owner; readonly deadline: Deadline } | undefined {
    return this.#entries[0];
  }

  /** Sets, moves or (with undefined) removes the owner's deadline. */
  set(owner: Owner, deadline: Deadline | undefined): void {
    const entry = this.#byOwner.get(owner);
    if (deadline === undefined) {
      if (entry !== undefined) this.#remove(entry);
      return;
    }
    if (entry === undefined) {
      this.#insert({ owner, deadline, place: this.#entries.length });
      return;
    }
    entry.deadline = deadline;
    this.#siftDown(this.#siftUp(entry));
  }

  #insert(entry: Entry<Owner>): void {
    this.#byOwner.set(entry.owner, entry);
    this.#entries.push(entry);
    this.#siftUp(entry);
  }

  #remove(entry: Entry<Owner>): void {
    this.#byOwner.delete(entry.owner);
    const last = this.#entries.pop()!;
    if (last === entry) return;
    last.place = entry.place;
    this.#entries[last.place] = last;
    this.#siftDown(this.#siftUp(last));
  }

  #siftUp(entry: Entry<Owner>): Entry<Owner> {
    while (entry.place > 0) {
      const parent = this.#entries[(entry.place - 1) >> 1]!;
      if (parent.deadline.at <= entry.deadline.at) break;
      this.#swap(parent, entry);
    }
    return entry;
  }

  #siftDown(entry: Entry<Owner>): void {
    for (;;) {
      const left = this.#entries[2 * entry.place + 1];
      const right = this.#entries[2 * entry.place + 2];
      const child = right !== undefined && right.deadline.at < left!.deadline.at ? right : left;
      if (child === undefined || child.deadline.at >= entry.deadline.at) return;
      this.#swap(entry, child);
    }
  }

  #swap(a: Entry<Owner>, b: Entry<Owner>): void {
    const place = a.place;
    a.place = b.place;
    b.place = place;
    this.#entries[a.place] = a;
    this.#entries[b.place] = b;
  }
}

interface Entry<Owner> {
  readonly owner: Owner;
  deadline: Deadline;
  /** Index in the heap. */
  place: number;
}
