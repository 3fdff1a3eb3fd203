/**
 * Blocks' inputs in host memory between the passes (Unsloth's "unsloth" checkpointing). On the device they take turns in two
 * buffers: while a block computes, its input is copied out; in the backward, while a block computes, the input of the block
 * before it is copied back to where it was. So a block finds its input at the same address in both passes.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { bytesOf } from "../core/dtype.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Run } from "./module.ts";

/** The next free slot of a backend: two models on one device take different ones. */
const nextSlot = new WeakMap<Backend, number>();

/** Moves inputs out and back. */
export class Offload {
  readonly #be: Backend;
  /** The last two inputs are still in the buffers when the backward begins: they never leave. */
  readonly #count: number;
  readonly #first: number;
  #placed = false;

  /** @param layers blocks of the model */
  constructor(be: Backend, layers: number) {
    this.#be = be;
    this.#count = Math.max(0, layers - 2);
    this.#first = nextSlot.get(be) ?? 0;
    nextSlot.set(be, this.#first + this.#count);
  }

  /** Host bytes for passes of `n` tokens of `dim` numbers. */
  bytes(n: number, dim: number): number {
    return this.#count * bytesOf(this.#be.actDtype, n * dim);
  }

  /** Places them; called between steps. */
  place(n: number, dim: number): void {
    this.close();
    this.#placed = true;
    for (let i = 0; i < this.#count; i++) this.#be.hostSlot(this.#first + i, this.bytes(n, dim) / this.#count);
  }

  /** Gives the host memory back. */
  close(): void {
    if (!this.#placed) return;
    this.#placed = false;
    for (let i = 0; i < this.#count; i++) this.#be.hostSlot(this.#first + i, 0);
  }

  /** Memory of the inputs: block n's is number n mod 2. */
  buffers(n: number, dim: number, run: Run): [Tensor, Tensor] {
    return [run.arena.act(n, dim), run.arena.act(n, dim)];
  }

  /** Before block n runs, whose output will lie where the input of block n-1 is. */
  enter(n: number, x: Tensor): void {
    if (n >= 1 && n - 1 < this.#count) this.#be.slotWait(this.#first + n - 1);
    if (n < this.#count) this.#be.stash(this.#first + n, x);
  }

  /** Before the backward of block n. */
  need(n: number): void {
    if (n < this.#count) this.#be.slotWait(this.#first + n);
  }

  /** After the backward of block n, which no longer needs its input: that of block n-2 comes in its place. */
  done(n: number, x: Tensor): void {
    if (n >= 2) this.#be.fetch(x, this.#first + n - 2);
  }
}
