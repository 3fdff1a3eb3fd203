/**
 * Checkpoints: all that a run needs to go on to the bit, in a folder that appears whole or not at all.
 *
 *     checkpoint-000010/params.safetensors     trained tensors, f32, by PEFT's names
 *     checkpoint-000010/optimizer.safetensors  moments, as the optimiser keeps them
 *     checkpoint-000010/state.json             step, place in the data, seeds, settings
 * @module
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { ConfigError, DataError, FormatError } from "../core/errors.ts";
import { writeWhole } from "../formats/new_file.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../formats/safetensors_write.ts";
import { readBytes } from "../formats/stored.ts";

/** A tensor's bytes on the host, as it lies on the device. */
export type HostTensor = Pick<TensorToWrite, "dtype" | "shape"> & { readonly bytes: Uint8Array };

/** Where a run stands after a step. */
export interface RunState {
  readonly version: 1;
  /** Steps done. */
  readonly step: number;
  /** The epoch the next micro-batch belongs to, and how many of its micro-batches are done. */
  readonly epoch: number;
  readonly micro: number;
  readonly trainedTokens: number;
  /** Seconds of training, over all sessions of the run. */
  readonly seconds: number;
  /** Best evaluation so far. */
  readonly best: { readonly step: number; readonly loss: number } | null;
  /** Evaluations since the best one. */
  readonly worse: number;
  /** Of each module its rank, and how many of the last directions fade (adaptive_rank.ts); null: all as in the settings. */
  readonly ranks: Readonly<Record<string, readonly [number, number]>> | null;
  /** What must be the same for a continued run to be the same run. */
  readonly settings: Readonly<Record<string, unknown>>;
}

/** A checkpoint in memory. */
export interface Checkpoint {
  readonly state: RunState;
  readonly params: ReadonlyMap<string, HostTensor>;
  readonly moments: ReadonlyMap<string, HostTensor>;
}

const FOLDER = /^checkpoint-(\d+)$/;

/** Folder of the checkpoint of a step. */
export function checkpointPath(dir: string, step: number): string {
  return join(dir, `checkpoint-${String(step).padStart(6, "0")}`);
}

/**
 * Writes a checkpoint under a temporary name and renames it; then removes the oldest beyond `keep`.
 * @returns its folder
 * @throws {ConfigError} when the disk refuses; what was there before is intact
 */
export async function saveCheckpoint(dir: string, c: Checkpoint, keep: number): Promise<string> {
  const place = checkpointPath(dir, c.state.step), temporary = `${place}.${process.pid}.tmp`;
  try {
    mkdirSync(temporary, { recursive: true });
    await writeSafetensors(join(temporary, "params.safetensors"), list(c.params));
    await writeSafetensors(join(temporary, "optimizer.safetensors"), list(c.moments));
    await writeWhole(
      join(temporary, "state.json"),
      async (file) => file.write(new TextEncoder().encode(JSON.stringify(c.state, null, 2) + "\n")),
    );
    replaceFolder(temporary, place);
  } catch (e) {
    rmSync(temporary, { recursive: true, force: true });
    const last = latestCheckpoint(dir);
    const kept = last ? `; ${last} is intact` : "";
    throw new ConfigError(`Cannot save the checkpoint of step ${c.state.step}: ${(e as Error).message}${kept}`);
  }
  const old = checkpoints(dir).slice(0, -keep);
  for (const { path } of old) rmSync(path, { recursive: true, force: true });
  return place;
}

function list(tensors: ReadonlyMap<string, HostTensor>): TensorToWrite[] {
  return [...tensors].map(([name, { dtype, shape, bytes }]) => ({ name, dtype, shape, chunks: () => [bytes] }));
}

/** A folder cannot be renamed onto one that has files: the old one steps aside first. */
function replaceFolder(from: string, to: string): void {
  const aside = `${to}.${process.pid}.old.tmp`;
  if (existsSync(to)) renameSync(to, aside);
  renameSync(from, to);
  rmSync(aside, { recursive: true, force: true });
}

/** Checkpoints of a folder, oldest first. */
function checkpoints(dir: string): { step: number; path: string }[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir).flatMap((name) => {
    const step = FOLDER.exec(name)?.[1];
    return step === undefined ? [] : [{ step: Number(step), path: join(dir, name) }];
  }).sort((a, b) => a.step - b.step);
}

/** The newest checkpoint of a folder; null when there is none. */
export function latestCheckpoint(dir: string): string | null {
  return checkpoints(dir).at(-1)?.path ?? null;
}

/**
 * Whether a run with these settings can go on from the newest checkpoint, without reading its tensors.
 * @throws {DataError | FormatError | ConfigError} when there is none, when it cannot be read, or is of another run
 */
export function checkResume(dir: string, settings: RunState["settings"]): void {
  const path = latestCheckpoint(dir);
  if (!path) throw new DataError(`Cannot resume: there is no checkpoint in ${dir}`);
  checkSettings(path, readState(path).settings, settings);
}

/** Removes all checkpoints of an earlier run, and what an interrupted save left. */
export function clearCheckpoints(dir: string): void {
  for (const { path } of checkpoints(dir)) rmSync(path, { recursive: true, force: true });
  clearLeftovers(dir);
}

/** Removes what an interrupted save left. */
export function clearLeftovers(dir: string): void {
  if (!existsSync(dir)) return;
  for (const name of readdirSync(dir)) {
    if (/^checkpoint-\d+\..*tmp$/.test(name)) rmSync(join(dir, name), { recursive: true, force: true });
  }
}

/**
 * Reads a checkpoint.
 * @throws {FormatError} when a file of it is missing or malformed
 */
export function readCheckpoint(path: string): Checkpoint {
  return {
    state: readState(path),
    params: readAll(join(path, "params.safetensors")),
    moments: readAll(join(path, "optimizer.safetensors")),
  };
}

function readState(path: string): RunState {
  const place = join(path, "state.json");
  let state: RunState;
  try {
    state = JSON.parse(readFileSync(place, "utf8"));
  } catch (e) {
    throw new FormatError(`Cannot resume from ${path}: ${(e as Error).message}`, place, 0);
  }
  if (state.version !== 1) {
    throw new FormatError(`Cannot resume from ${path}: its version is ${state.version}`, place, 0);
  }
  return state;
}

function readAll(path: string): Map<string, HostTensor> {
  const file = openSafetensors(path);
  try {
    return new Map(
      [...file.tensors.values()].map((t) => [t.name, { dtype: t.dtype, shape: t.shape, bytes: readBytes(t) }]),
    );
  } finally {
    file.close();
  }
}

/**
 * Whether a checkpoint belongs to a run with these settings.
 * @throws {ConfigError} naming every setting that differs, with both values
 */
export function checkSettings(path: string, found: RunState["settings"], now: RunState["settings"]): void {
  const names = new Set([...Object.keys(found), ...Object.keys(now)]);
  const differ = [...names].filter((n) => JSON.stringify(found[n]) !== JSON.stringify(now[n]));
  if (differ.length === 0) return;
  const told = differ.map((n) => `${n} was ${JSON.stringify(found[n])} and is ${JSON.stringify(now[n])}`);
  throw new ConfigError(`Cannot resume from ${path}: ${told.join(", ")}`);
}
