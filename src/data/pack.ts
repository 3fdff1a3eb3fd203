/**
 * Packing: rows put into packs of a fixed number of tokens, each row whole, in the first pack that has room (first fit). Inside a
 * pack rows stay sequences of their own: positions restart and attention does not cross, which is `cu`'s doing.
 * @module
 */

/**
 * Packs of row numbers.
 * @param order rows in the order they are taken
 * @param tokens tokens of a row; at most `capacity`
 * @param capacity tokens a pack holds
 * @throws {RangeError} when a row is longer than a pack
 */
export function packRows(order: ArrayLike<number>, tokens: (row: number) => number, capacity: number): number[][] {
  const packs: number[][] = [];
  const room = new RoomTree(capacity);
  for (let i = 0; i < order.length; i++) {
    const row = order[i]!, n = tokens(row);
    if (n > capacity) throw new RangeError(`Cannot pack a row of ${n} tokens into packs of ${capacity}`);
    const pack = room.take(n);
    (packs[pack] ??= []).push(row);
  }
  return packs;
}

/** Room left in packs, as a tree of maxima, so that the first pack with enough room is found in log steps. */
class RoomTree {
  /** Leaves of the tree; all packs that are not open yet are empty. */
  #leaves = 1;
  #max: number[];

  private readonly capacity: number;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.#max = [0, capacity];
  }

  /** The first pack with room for n tokens, which are taken from it. */
  take(n: number): number {
    if (this.#max[1]! < n) this.#grow();
    let node = 1;
    while (node < this.#leaves) node = this.#max[2 * node]! >= n ? 2 * node : 2 * node + 1;
    const pack = node - this.#leaves;
    this.#max[node]! -= n;
    for (node >>= 1; node >= 1; node >>= 1) this.#max[node] = Math.max(this.#max[2 * node]!, this.#max[2 * node + 1]!);
    return pack;
  }

  #grow(): void {
    const leaves = this.#max.slice(this.#leaves), n = 2 * this.#leaves;
    this.#max = new Array(2 * n).fill(0);
    for (let i = 0; i < n; i++) this.#max[n + i] = leaves[i] ?? this.capacity;
    for (let i = n - 1; i >= 1; i--) this.#max[i] = Math.max(this.#max[2 * i]!, this.#max[2 * i + 1]!);
    this.#leaves = n;
  }
}
