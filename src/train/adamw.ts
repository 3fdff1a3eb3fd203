/** AdamW with f32 moments, and with moments of 8 bits. @module */
import type { Backend } from "../core/backend.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import { dynamicCode } from "./dynamic_code.ts";
import { place, type Rule } from "./rule.ts";

/** Loshchilov & Hutter 2019; transformers' adamw_torch. */
export const adamw: Rule = {
  place: (be, slab) => ({ m: place(be, "f32", numel(slab.value)), v: place(be, "f32", numel(slab.value)) }),
  update: (be, slab, { m, v }, hyper) => be.adamw(slab.value, slab.grad, m, v, hyper),
};

/** Elements of a block with one absmax. */
const BLOCK = 256;

/** Dettmers et al. 2022; bitsandbytes' AdamW8bit. Some groups keep f32 moments there too (nn/params.ts, Group). */
export const adamw8: Rule = {
  place(be, slab) {
    if (slab.group.endsWith(".f32")) return adamw.place(be, slab);
    const n = numel(slab.value), signed = dynamicCode(true), unsigned = dynamicCode(false);
    const m = place(be, "u8", n), v = place(be, "u8", n);
    be.fill(m, signed.indexOf(0)); // moments start at zero
    be.fill(v, unsigned.indexOf(0));
    return { m, v, absmax: place(be, "f32", 2, n / BLOCK), codes: codes(be, signed, unsigned) };
  },
  update(be, slab, state, hyper) {
    if (!state.codes) return adamw.update(be, slab, state, hyper);
    const { m, v, absmax, codes } = state;
    be.adamw8(slab.value, slab.grad, m, v, absmax, codes, hyper);
  },
};

function codes(be: Backend, signed: Float32Array, unsigned: Float32Array): Tensor {
  const t = place(be, "f32", 2, 256);
  be.upload(t, Float32Array.of(...signed, ...unsigned));
  return t;
}
