/** An asynchronous list that one side fills while the other reads it. @module */

/** Values in the order they were pushed; reading waits for the next. One reader. */
export class Outlet<T> implements AsyncIterableIterator<T> {
  #values: T[] = [];
  #waiting: { resolve(r: IteratorResult<T>): void; reject(e: unknown): void } | null = null;
  #ended = false;
  #error: unknown = null;
  readonly #onLeave: () => void;

  /** @param onLeave called when the reader stops before the end */
  constructor(onLeave: () => void) {
    this.#onLeave = onLeave;
  }

  /** Hands `value` to the reader, or keeps it until asked. */
  push(value: T): void {
    if (this.#ended) return;
    if (this.#waiting) this.#settle().resolve({ value, done: false });
    else this.#values.push(value);
  }

  /** Nothing follows. */
  end(): void {
    this.#ended = true;
    if (this.#waiting) this.#settle().resolve({ value: undefined, done: true });
  }

  /** The reader gets what was pushed, then this error. */
  fail(error: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#waiting) this.#settle().reject(error);
    else this.#error = error;
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#values.length > 0) return Promise.resolve({ value: this.#values.shift()!, done: false });
    if (this.#error !== null) {
      const error = this.#error;
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#waiting = { resolve, reject });
  }

  return(): Promise<IteratorResult<T>> {
    if (!this.#ended) this.#onLeave();
    this.end();
    this.#values = [];
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #settle(): { resolve(r: IteratorResult<T>): void; reject(e: unknown): void } {
    const waiting = this.#waiting!;
    this.#waiting = null;
    return waiting;
  }
}
