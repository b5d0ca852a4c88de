/** A priority queue: the item with the lowest key first, and of those with one key the one that came first. */
export class Heap<T> {
  readonly #items: { readonly key: number; readonly order: number; readonly value: T }[] = [];
  #order = 0;

  get size(): number {
    return this.#items.length;
  }

  push(key: number, value: T): void {
    const items = this.#items;
    const item = { key, order: this.#order++, value };
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(item, items[parent])) break;
      items[at] = items[parent];
      at = parent;
    }
    items[at] = item;
  }

  /** Removes and gives the first, if its key is at most this; undefined otherwise. */
  popUpTo(key: number): T | undefined {
    const items = this.#items;
    const first = items.at(0);
    if (first === undefined || first.key > key) return undefined;
    const last = items.pop()!;
    if (items.length === 0) return first.value;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && isBefore(items[child + 1], items[child])) child += 1;
      if (!isBefore(items[child], last)) break;
      items[at] = items[child];
      at = child;
    }
    items[at] = last;
    return first.value;
  }
}

interface Ordered {
  readonly key: number;
  readonly order: number;
}

const isBefore = (a: Ordered, b: Ordered): boolean => a.key < b.key || (a.key === b.key && a.order < b.order);
