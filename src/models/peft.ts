/** A loaded model's trained tensors as an adapter in peft's naming, and back. @module */
import { type Adapter, alphaOf, type FloatTensor, rankOf, savedName } from "../formats/adapter.ts";
import { withoutZeroDirections } from "../formats/adapter_rank.ts";
import { isQuant } from "../core/dtype.ts";
import { ConfigError, FormatError } from "../core/errors.ts";
import { encodeBf16, encodeFiniteHalves } from "../formats/float16.ts";
import type { LoraOptions } from "./adapter.ts";
import type { Model } from "./load.ts";

export { savedName as peftName } from "../formats/adapter.ts";

/**
 * The trained tensors as an adapter to the weights as they lie in the file, without directions that adaptive ranks have
 * taken away. After PiSSA those lack what the adapter started
 * with, so its rank doubles: s·(B·A - B₀·A₀) = s·[B, -B₀]·[A; A₀] (peft, utils/save_and_load.py, subtract_mutated_init).
 * @throws {ConfigError} when the model carries no adapter
 */
export async function readAdapter(model: Model): Promise<Adapter> {
  if (!model.lora) throw new ConfigError("Cannot read the adapter: the model was loaded without one");
  const tensors = new Map<string, FloatTensor>(), { first } = model;
  for (const [name, t] of await model.trained()) {
    const start = first.get(name);
    tensors.set(savedName(name), start ? (name.includes(".lora_A.") ? below(t, start) : beside(t, start)) : t);
  }
  return withoutZeroDirections({ settings: first.size ? doubled(model) : model.lora, tensors });
}

function concat(a: Float32Array, b: Float32Array): Float32Array {
  const out = new Float32Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

/** [A; A₀]. */
function below(a: FloatTensor, b: FloatTensor): FloatTensor {
  return { shape: [2 * a.shape[0], a.shape[1]], values: concat(a.values, b.values) };
}

/** [B, -B₀]. */
function beside(a: FloatTensor, b: FloatTensor): FloatTensor {
  const [rows, rank] = a.shape, values = new Float32Array(2 * rows * rank);
  for (let o = 0; o < rows; o++) {
    for (let r = 0; r < rank; r++) {
      values[o * 2 * rank + r] = a.values[o * rank + r];
      values[o * 2 * rank + rank + r] = -b.values[o * rank + r];
    }
  }
  return { shape: [rows, 2 * rank], values };
}

/** Twice the rank at the same scale, but for modules that started otherwise (the embedding). */
function doubled({ lora, first, plan }: Model): LoraOptions {
  const s = lora!, f = s.rslora ? Math.SQRT2 : 2;
  const same = [...plan.adapters.keys()].filter((m) => !first.has(`${m}.lora_A.weight`));
  // The first pattern that matches counts, so these stand first and by their whole names.
  const times = (m: Readonly<Record<string, number>>, f: number, own: (module: string) => number) => ({
    ...Object.fromEntries(same.map((module) => [module, own(module)])),
    ...Object.fromEntries(Object.entries(m).map(([k, v]) => [k, v * f])),
  });
  return {
    ...{ ...s, r: 2 * s.r, alpha: f * s.alpha, start: "default" },
    rankPattern: times(s.rankPattern, 2, (module) => rankOf(s, module)),
    alphaPattern: times(s.alphaPattern, f, (module) => alphaOf(s, module)),
  };
}

/** What peft saves beside an adapter on the head or the embedding: a copy of the weight under it. */
const BASE = /\.base_layer\.weight$/;

/**
 * Sets the trained tensors from an adapter, and a frozen weight that peft saved beside its adapter (save_embedding_layers:
 * whenever the head is among the targets).
 * @throws {FormatError} listing what is missing, unknown or misshapen
 */
export function writeAdapter(model: Model, adapter: Pick<Adapter, "tensors">): void {
  const names = new Map((model.params?.list ?? []).map((p) => [savedName(p.name), p.name]));
  const trained = new Map<string, FloatTensor>(), unknown: string[] = [];
  for (const [n, t] of adapter.tensors) {
    const name = names.get(savedName(n));
    if (name) trained.set(name, t);
    else if (BASE.test(n) && model.plan.adapters.has(n.replace(BASE, ""))) setFrozen(model, n.replace(BASE, ""), t);
    else unknown.push(n);
  }
  if (unknown.length) throw new FormatError(`Cannot use the adapter: the model has no ${unknown.join(", ")}`);
  model.setTrained(trained);
}

/** Replaces the weight under an adapter; a tied head's is the embedding, as in peft. */
function setFrozen(model: Model, module: string, t: FloatTensor): void {
  const ours = model.source.tensors.find((x) => x.hf === `${module}.weight`)?.ours ?? "embed";
  const w = model.weights.get(ours)!, name = `${module}.base_layer.weight`;
  if (w.shape.join() !== t.shape.join()) {
    throw new FormatError(`Cannot use the adapter: its '${name}' is [${t.shape}] and the model's [${w.shape}]`);
  }
  if (isQuant(w.dtype)) {
    throw new FormatError(`Cannot use the adapter: its '${name}' cannot replace a weight of type ${w.dtype}`);
  }
  const encode = { bf16: encodeBf16, f16: (x: Float32Array) => encodeFiniteHalves(x, name) }[w.dtype as string];
  model.be.upload(w, encode ? encode(t.values) : t.values);
}
