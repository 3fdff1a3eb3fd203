/** A run's tensors between the device and the host: parameters and the optimiser's state, byte for byte. @module */
import type { Backend } from "../core/backend.ts";
import { FormatError } from "../core/errors.ts";
import { byteLength, type Tensor } from "../core/tensor.ts";
import type { Param } from "../nn/module.ts";
import type { HostTensor } from "./state.ts";

/** What is saved of a run's device memory. */
export interface DeviceState {
  readonly params: Map<string, HostTensor>;
  readonly moments: Map<string, HostTensor>;
}

/** Reads parameters and moments. */
export async function downloadState(
  be: Backend,
  params: readonly Param[],
  moments: ReadonlyMap<string, Tensor>,
): Promise<DeviceState> {
  const out: DeviceState = { params: new Map(), moments: new Map() };
  for (const p of params) out.params.set(p.name, await download(be, p.value));
  for (const [name, t] of moments) out.moments.set(name, await download(be, t));
  return out;
}

async function download(be: Backend, t: Tensor): Promise<HostTensor> {
  const bytes = new Uint8Array(byteLength(t));
  await be.download(t, bytes);
  return { dtype: t.dtype, shape: t.shape, bytes };
}

/**
 * Writes parameters and moments to where they lie.
 * @throws {FormatError} when a tensor is missing, unknown or of another shape or type
 */
export function uploadState(
  be: Backend,
  params: readonly Param[],
  moments: ReadonlyMap<string, Tensor>,
  saved: ReadonlyMap<string, HostTensor>,
  savedMoments: ReadonlyMap<string, HostTensor>,
  path: string,
): void {
  uploadAll(be, new Map(params.map((p) => [p.name, p.value])), saved, path);
  uploadAll(be, moments, savedMoments, path);
}

function uploadAll(
  be: Backend,
  places: ReadonlyMap<string, Tensor>,
  saved: ReadonlyMap<string, HostTensor>,
  path: string,
): void {
  for (const name of new Set([...places.keys(), ...saved.keys()])) {
    const place = places.get(name), from = saved.get(name);
    const fits = place && from && place.dtype === from.dtype && place.shape.join() === from.shape.join();
    if (!fits) throw new FormatError(`Cannot resume from ${path}: its tensor '${name}' does not fit this run`, path);
  }
  for (const [name, place] of places) be.upload(place, saved.get(name)!.bytes);
}
