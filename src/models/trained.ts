/**
 * Trained tensors between device and host, under peft's names and in peft's layout: an embedding's A is [R,V] there and
 * lies as [V,R] on the device, where its rows are looked up.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { FormatError } from "../core/errors.ts";
import { numel, type Tensor } from "../core/tensor.ts";
import type { FloatTensor } from "../formats/adapter.ts";
import type { Params } from "../nn/params.ts";

const turned = (name: string): boolean => name.endsWith(".lora_embedding_A");

/** A tensor as it lies on the device, in peft's layout. */
export function fromDevice(name: string, t: FloatTensor): FloatTensor {
  return turned(name) ? transposed(t) : t;
}

/** Reads all of them. */
export async function downloadAll(be: Backend, params: Params | null): Promise<Map<string, FloatTensor>> {
  const out = new Map<string, FloatTensor>();
  for (const { name, value } of params?.list ?? []) {
    const values = new Float32Array(numel(value));
    await be.download(value, values);
    out.set(name, fromDevice(name, { shape: value.shape, values }));
  }
  return out;
}

/** Sets all of them. @throws {FormatError} listing names that are missing, unknown or misshapen */
export function uploadAll(be: Backend, params: Params | null, tensors: ReadonlyMap<string, FloatTensor>): void {
  const problems: string[] = [], list = params?.list ?? [];
  const wish = (name: string, t: Tensor) => (turned(name) ? t.shape.toReversed() : t.shape).join();
  for (const { name, value } of list) {
    const t = tensors.get(name);
    if (!t) problems.push(`'${name}' is missing`);
    else if (t.shape.join() !== wish(name, value)) {
      problems.push(`'${name}' is [${t.shape}] and must be [${wish(name, value)}]`);
    }
  }
  for (const name of tensors.keys()) if (!params?.get(name)) problems.push(`'${name}' is not trained here`);
  if (problems.length) throw new FormatError(`Cannot set the trained tensors: ${problems.join("; ")}`);
  for (const { name, value } of list) {
    const t = tensors.get(name)!;
    be.upload(value, (turned(name) ? transposed(t) : t).values);
  }
}

function transposed({ shape: [rows, cols], values: from }: FloatTensor): FloatTensor {
  const values = new Float32Array(from.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) values[j * rows + i] = from[i * cols + j];
  return { shape: [cols, rows], values };
}
