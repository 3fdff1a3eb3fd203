/** Host memory by number for the reference: what a slot holds, and what is wrong with a call. */
import { BackendError } from "../../src/core/errors.ts";

interface Slot {
  readonly bytes: number;
  values: Float64Array | null;
}

/** f64 copies of f32 tensors; bytes are counted as f32. */
export class HostSlots {
  readonly #slots = new Map<number, Slot>();

  /** bytes 0 gives the slot back. */
  place(slot: number, bytes: number): void {
    if (bytes === 0) this.#slots.delete(slot);
    else if (this.#slots.has(slot)) throw new BackendError(`Cannot place ${bytes} bytes in slot ${slot}: it is taken`);
    else this.#slots.set(slot, { bytes, values: null });
  }

  put(slot: number, values: Float64Array): void {
    const s = this.find(slot), bytes = 4 * values.length;
    if (bytes > s.bytes) throw new BackendError(`Cannot stash ${bytes} bytes in slot ${slot}: it has ${s.bytes}`);
    s.values = values.slice();
  }

  get(slot: number, n: number): Float64Array {
    const { values } = this.find(slot);
    if (values?.length === n) return values;
    throw new BackendError(`Cannot fetch ${n} numbers from slot ${slot}: it holds ${values?.length ?? 0}`);
  }

  find(slot: number): Slot {
    const s = this.#slots.get(slot);
    if (!s) throw new BackendError(`Cannot use slot ${slot} of host memory: nothing was placed in it`);
    return s;
  }
}
