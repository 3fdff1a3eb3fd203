/** A loaded model's trained tensors as an adapter in peft's naming, and back. @module */
import type { Adapter, FloatTensor } from "../formats/adapter.ts";
import { ConfigError, FormatError } from "../core/errors.ts";
import type { Model } from "./load.ts";

/**
 * The name a parameter has in peft's files, without their `base_model.model.` prefix: copies made by modules_to_save
 * carry the module's own name, DoRA's vector has no suffix (peft, utils/save_and_load.py).
 */
export function peftName(param: string): string {
  return param.replace(".modules_to_save.", ".").replace(/\.lora_magnitude_vector\.weight$/, ".lora_magnitude_vector");
}

/** The trained tensors, read from the device. @throws {ConfigError} when the model carries no adapter */
export async function readAdapter(model: Model): Promise<Adapter> {
  if (!model.lora) throw new ConfigError("Cannot read the adapter: the model was loaded without one");
  const tensors = new Map<string, FloatTensor>();
  for (const [name, t] of await model.trained()) tensors.set(peftName(name), t);
  return { settings: model.lora, tensors };
}

/** Sets the trained tensors from an adapter. @throws {FormatError} listing what is missing, unknown or misshapen */
export function writeAdapter(model: Model, adapter: Pick<Adapter, "tensors">): void {
  const names = new Map((model.params?.list ?? []).map((p) => [peftName(p.name), p.name]));
  const unknown = [...adapter.tensors.keys()].filter((n) => !names.has(n));
  if (unknown.length) throw new FormatError(`Cannot use the adapter: the model has no ${unknown.join(", ")}`);
  model.setTrained(new Map([...adapter.tensors].map(([n, t]) => [names.get(n)!, t])));
}
