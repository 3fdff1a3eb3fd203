/** Early stopping: counts evaluations without a better loss, and keeps the best weights on disk. @module */
import { existsSync, rmSync } from "node:fs";
import { openSafetensors } from "../formats/safetensors.ts";
import { floatTensor, writeSafetensors } from "../formats/safetensors_write.ts";
import { readFloats } from "../formats/stored.ts";
import type { Model } from "../models/load.ts";
import type { EvalFigures } from "./metrics.ts";

/** Why a run was stopped. */
export interface EarlyStop {
  readonly best: { readonly step: number; readonly loss: number };
  /** Evaluations since the best. */
  readonly worse: number;
}

/** Watches the held-out loss. With patience 0 it does nothing. */
export class EarlyStopper {
  best: { step: number; loss: number } | null = null;
  worse = 0;
  readonly #patience: number;
  readonly #path: string;

  /** @param path where the best weights are kept while the run lasts */
  constructor(patience: number, path: string) {
    this.#patience = patience;
    this.#path = path;
  }

  /** Goes on as a checkpoint left it. */
  restore(best: { step: number; loss: number } | null, worse: number): void {
    this.best = best;
    this.worse = worse;
  }

  /** Forgets what an earlier run left. */
  clear(): void {
    rmSync(this.#path, { force: true });
  }

  /** Takes note of an evaluation; gives the reason once patience is at its end. */
  async judge({ step, loss }: EvalFigures, model: Model): Promise<EarlyStop | null> {
    if (this.#patience === 0) return null;
    if (this.best && !(loss < this.best.loss)) {
      this.worse++;
      return this.worse >= this.#patience ? { best: this.best, worse: this.worse } : null;
    }
    this.best = { step, loss };
    this.worse = 0;
    const tensors = [...await model.trained()].map(([name, t]) => floatTensor(name, t.values, t.shape));
    await writeSafetensors(this.#path, tensors);
    return null;
  }

  /** Puts the best weights on the model and removes their file. */
  takeBest(model: Model): void {
    if (this.#patience === 0 || !existsSync(this.#path)) return;
    const file = openSafetensors(this.#path);
    try {
      const tensors = [...file.tensors.values()].map((t) =>
        [t.name, { shape: t.shape, values: readFloats(t) }] as const
      );
      model.setTrained(new Map(tensors));
    } finally {
      file.close();
    }
    rmSync(this.#path);
  }
}
