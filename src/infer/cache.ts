/**
 * Which rows of the key/value cache hold which tokens. A slot keeps its tokens when its request ends, and the next
 * request that begins with the same ones is given that slot and computes only the rest.
 * @module
 */

/** A slot and how many tokens of a prompt it holds: these need not be computed. */
export interface Place {
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

  readonly #ropeTurn: number;

  /** @param ropeTurn lists longer and lists not longer than this share nothing (queue.ts, Runner) */
  constructor(count: number, ropeTurn = Infinity) {
    this.count = count;
    this.#ropeTurn = ropeTurn;
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
  find(ids: Int32Array): Place | null {
    let best: Place | null = null;
    this.#held.forEach((held, slot) => {
      if (held === null) return;
      const alike = (held.length > this.#ropeTurn) === (ids.length > this.#ropeTurn);
      const cached = alike ? Math.min(sharedPrefix(held, ids), ids.length - 1) : 0;
      const older = best !== null && cached === best.cached && this.#usedAt[slot] < this.#usedAt[best.slot];
      if (best === null || cached > best.cached || older) best = { slot, cached };
    });
    return best;
  }

  /** Lends a free slot: its rows will be written. */
  lend(slot: number): void {
    this.#held[slot] = null;
  }

  /** Gives the slot back with the tokens its rows hold. */
  release(slot: number, ids: Int32Array): void {
    this.#held[slot] = ids;
    this.#usedAt[slot] = ++this.#clock;
  }
}

/** How many tokens two lists begin with alike. */
export function sharedPrefix(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const end = Math.min(a.length, b.length);
  let n = 0;
  while (n < end && a[n] === b[n]) n++;
  return n;
}
