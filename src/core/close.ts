/** Closing what a run has opened. @module */

/**
 * Closes all, in order. An error of `close` is thrown after the rest was closed, but not over the failure that ended the
 * work: on a lost device every close fails too, and says less.
 * @param failure what the work threw; undefined: it did not fail
 */
export function closeAll(list: readonly ({ close(): void } | null | undefined)[], failure?: unknown): void {
  const errors: unknown[] = [];
  for (const x of list) {
    try {
      x?.close();
    } catch (e) {
      errors.push(e);
    }
  }
  if (errors.length > 0 && failure === undefined) throw errors[0];
}
