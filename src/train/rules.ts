/** The update rules beside AdamW: SGD, Lion, Adafactor. @module */
import { cols, numel, type Tensor } from "../core/tensor.ts";
import { place, type Rule, type SlabState } from "./rule.ts";

/** torch.optim.SGD with momentum (0 by default), no dampening, no Nesterov. */
export const sgd: Rule = {
  place: (be, slab) => ({ m: place(be, "f32", numel(slab.value)) }),
  update: (be, slab, { m }, hyper) => be.sgd(slab.value, slab.grad, m, hyper),
  hyper: ({ lr, decay, o }) => [lr, o.momentum ?? 0, 0, 0, decay, 0, 0, 1],
};

/** Chen et al. 2023; bitsandbytes' Lion, transformers' lion_32bit. */
export const lion: Rule = {
  place: (be, slab) => ({ m: place(be, "f32", numel(slab.value)) }),
  update: (be, slab, { m }, hyper) => be.lion(slab.value, slab.grad, m, hyper),
};

/** Shazeer & Stern 2018 as transformers' Trainer sets it: a given learning rate, no first moment, no relative step. */
export const adafactor: Rule = {
  place(be, slab) {
    const state: Record<string, Tensor> = {};
    for (const { name, value } of slab.params) {
      const matrix = value.shape.length > 1;
      if (matrix) state[`row.${name}`] = place(be, "f32", numel(value) / cols(value));
      state[`col.${name}`] = place(be, "f32", matrix ? cols(value) : numel(value));
    }
    return state;
  },
  update(be, slab, state: SlabState, hyper) {
    for (const { name, value, grad } of slab.params) {
      be.adafactor(value, grad, state[`row.${name}`] ?? null, state[`col.${name}`], hyper);
    }
  },
  // transformers' defaults: eps 1e-30, clip threshold 1, decay rate -0.8.
  hyper: ({ lr, decay, t }) => [lr, 0, 1 - t ** -0.8, 1e-30, decay, 1, 0, 1],
};
