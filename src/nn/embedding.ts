/** Token embedding: the first layer, whose table is often the head's weight too. @module */
import { slice, type Tensor } from "../core/tensor.ts";
import { type Param, type Run, type Slot, valueOf } from "./module.ts";

/** The generator's stream of the noise, apart from the linears' (dropout counts them from 0). */
const NOISE_STREAM = 0x80000000;

/** The table's low-rank update; rows of A are looked up as rows of the table are. */
export interface TableLora {
  /** peft's lora_embedding_A [R,V], transposed. */
  readonly a: Param /* [V,R] */;
  /** peft's lora_embedding_B. */
  readonly b: Param /* [D,R] */;
  /** alpha/R, or alpha/√R (rsLoRA). */
  readonly scale: number;
}

/** What an embedding is made of. */
export interface EmbeddingParts {
  readonly table: Slot /*[V,D]*/;
  readonly scale: number;
  readonly lora: TableLora | null;
  /** The token that pads: its row learns nothing (torch's padding_idx); null: none. */
  readonly padding: number | null;
}

/**
 * out[n] = scale·(table[ids[n]] + s·A[ids[n]]·Bᵀ), in training with NEFTune's uniform noise on it (Jain et al. 2023), whose
 * gradient is that of the sum: nothing to undo.
 */
export class Embedding {
  readonly parts: EmbeddingParts;

  constructor(parts: EmbeddingParts) {
    this.parts = parts;
  }

  /** Whether anything of it learns from the gradient of its output. */
  get trained(): boolean {
    return !!this.parts.table.param || !!this.parts.lora;
  }

  forward(out: Tensor, /*[N,D]*/ ids: Tensor, /*i32 [N]*/ run: Run): void {
    const { be, arena } = run, { table, scale, lora } = this.parts;
    be.embed(out, valueOf(table, run), ids, scale);
    if (lora && run.adapters) {
      const mark = arena.mark(), xa = arena.act(ids.shape[0], lora.a.value.shape[1]);
      be.embed(xa, lora.a.value, ids, 1);
      be.matmul(out, xa, lora.b.value, null, { transB: true, alpha: lora.scale * scale, beta: 1 });
      if (run.keep) run.save(this, xa);
      else arena.release(mark);
    }
    if (run.noise && run.seed) be.noise(out, out, run.noise, run.seed, NOISE_STREAM);
    run.save(this, ids);
  }

  /** Adds to the gradients of the table and of its adapter, as far as they are trained. */
  backward(dy: Tensor, /*[N,D]*/ run: Run): void {
    const { be, arena } = run, { table, scale, lora } = this.parts, [ids] = run.load(this);
    if (table.param) this.#add(table.param.grad, dy, ids, scale, run);
    if (!lora || !run.adapters) return;
    const [xa] = run.load(this), mark = arena.mark(), s = lora.scale * scale;
    const dxa = arena.act(...xa.shape);
    be.matmul(dxa, dy, lora.b.value, null, { alpha: s });
    this.#add(lora.a.grad, dxa, ids, 1, run);
    be.matmul(lora.b.grad, dy, xa, null, { transA: true, alpha: s, beta: 1 });
    arena.release(mark);
  }

  /** grad[ids[n]] += scale·d[n], but for the padding's row, which a tied head may have added to. */
  #add(grad: Tensor, /*[V,C]*/ d: Tensor, /*[N,C]*/ ids: Tensor, scale: number, run: Run): void {
    const { be, arena } = run, { padding } = this.parts, mark = arena.mark();
    const row = padding === null ? null : slice(grad, padding, padding + 1);
    const kept = row && arena.tensor("f32", ...row.shape);
    if (row) be.copy(kept!, row);
    be.embedBwd(grad, d, ids, scale);
    if (row) be.copy(row, kept!);
    arena.release(mark);
  }
}
