/**
 * Which rows of the key/value cache hold which tokens. A slot keeps its tokens when its request ends, and the next
 * request that begins with the same ones is given that slot and computes only the rest.
 * @module
 */

/** A slot lent to a request; `cached` tokens of its prompt need not be computed. */
export interface Lease {
  slot: number;
  cached: number;
}

/** The slots of one cache. */
export class SlotTable {
  /** Tokens whose keys and values lie in the slot's rows 0, 1, …; null while lent. */
  #held: (Int32Array | null)[];
  #usedAt: number[];
  #clock = 0;
  readonly count: number;

  constructor(count: number) {
    this.count = count;
    this.#held = Array.from({ length: count }, () => new Int32Array());
    this.#usedAt = new Array(count).fill(0);
  }

  /** Slots now lent. */
  get lent(): number {
    return this.#held.filter((h) => h === null).length;
  }

  /**
   * The free slot that shares the longest beginning with `ids`, of equals the one unused longest; null when all are lent.
   * At least the last token is always left to compute, since its logits are wanted.
   */
  take(ids: Int32Array): Lease | null {
    let best: Lease | null = null;
    this.#held.forEach((held, slot) => {
      if (held === null) return;
      const cached = Math.min(sharedPrefix(held, ids), ids.length - 1);
      const older = best !== null && cached === best.cached && this.#usedAt[slot] < this.#usedAt[best.slot];
      if (best === null || cached > best.cached || older) best = { slot, cached };
    });
    if (best !== null) this.#held[(best as Lease).slot] = null;
    return best;
  }

  /** Gives the slot back with the tokens its rows hold. */
  release(slot: number, ids: Int32Array): void {
    this.#held[slot] = ids;
    this.#usedAt[slot] = ++this.#clock;
  }
}

function sharedPrefix(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length);
  let n = 0;
  while (n < end && a[n] === b[n]) n++;
  return n;
}
