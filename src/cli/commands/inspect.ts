/** `inspect`: what is in a GGUF, a safetensors file, a model folder or an adapter, without loading it. @module */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "../../core/errors.ts";
import { adapterParts } from "../../formats/adapter.ts";
import { openGguf } from "../../formats/gguf_read.ts";
import { isPeftAdapter, readPeft } from "../../formats/peft.ts";
import { openSafetensors, openSafetensorsFolder } from "../../formats/safetensors.ts";
import type { StoredTensor } from "../../formats/stored.ts";
import type { CliContext } from "../context.ts";
import { lastTrained } from "../find_model.ts";
import type { Settings } from "../settings.ts";
import { bytesText, count, type Terminal } from "../terminal.ts";

/** Runs the command. */
export function run(settings: Settings, { terminal }: CliContext): Promise<number> {
  const path = settings.config.model_name ?? lastTrained(settings.config);
  if (!existsSync(path)) throw new ConfigError(`Cannot inspect ${path}: it does not exist`);
  terminal.out(`${terminal.paint("bold", path)}`);
  if (!statSync(path).isDirectory()) inspectFile(path, terminal);
  else if (isPeftAdapter(path)) inspectAdapter(path, terminal);
  else inspectFolder(path, terminal);
  return Promise.resolve(0);
}

function inspectFile(path: string, terminal: Terminal): void {
  if (path.endsWith(".gguf")) return inspectGguf(path, terminal);
  if (!path.endsWith(".safetensors")) {
    throw new ConfigError(`Cannot inspect ${path}: it takes .gguf, .safetensors and folders`);
  }
  const file = openSafetensors(path);
  for (const [key, value] of Object.entries(file.metadata)) terminal.out(`  ${key}: ${value}`);
  listTensors([...file.tensors.values()], terminal);
  file.close();
}

function inspectFolder(path: string, terminal: Terminal): void {
  const index = join(path, "model.safetensors.index.json");
  if (!existsSync(join(path, "model.safetensors")) && !existsSync(index)) {
    const files = readdirSync(path).filter((name) => /\.(gguf|safetensors)$/.test(name)).sort();
    if (files.length === 1) return inspectFile(join(path, files[0]), terminal);
    const what = files.length ? `${files.join(", ")}; name one` : "neither an adapter nor a .gguf or .safetensors file";
    throw new ConfigError(`Cannot inspect ${path}: it holds ${what}`);
  }
  const file = openSafetensorsFolder(path);
  listTensors([...file.tensors.values()], terminal);
  file.close();
}

function inspectGguf(path: string, terminal: Terminal): void {
  const file = openGguf(path);
  terminal.out(`GGUF version ${file.version}, ${file.meta.size} keys, tensors at multiples of ${file.alignment} bytes`);
  for (const [key, value] of file.meta) terminal.out(`  ${key}: ${shown(value, terminal.columns - key.length - 6)}`);
  listTensors([...file.tensors.values()], terminal);
  file.close();
}

function inspectAdapter(path: string, terminal: Terminal): void {
  const adapter = readPeft(path), { settings } = adapter, parts = adapterParts(adapter);
  terminal.out(`LoRA adapter in PEFT's format, base ${settings.baseModel ?? "unknown"}`);
  const kind = [settings.rslora && "rsLoRA", settings.dora && "DoRA"].filter(Boolean).join(", ");
  terminal.out(`  r ${settings.r}, alpha ${settings.alpha}, dropout ${settings.dropout}${kind ? `, ${kind}` : ""}`);
  terminal.out(
    `  targets ${Array.isArray(settings.targetModules) ? settings.targetModules.join(" ") : settings.targetModules}`,
  );
  const values = [...adapter.tensors.values()].reduce((n, t) => n + t.values.length, 0);
  terminal.out(`  ${parts.pairs.size} pairs, ${parts.whole.size} whole tensors, ${count(values)} parameters`);
  for (const [module, pair] of parts.pairs) {
    terminal.out(`  ${module}  r ${pair.rank}, scale ${pair.scale}, |B·A| ${norm(pair).toExponential(3)}`);
  }
}

/** Frobenius norm of scale·B·A, by way of the R×R matrices AAᵀ and BᵀB. */
function norm(
  p: { a: Float32Array; b: Float32Array; rank: number; inputs: number; outputs: number; scale: number },
): number {
  const { a, b, rank: r, inputs, outputs } = p;
  let sum = 0;
  for (let i = 0; i < r; i++) {
    for (let j = 0; j < r; j++) {
      let aa = 0, bb = 0;
      for (let k = 0; k < inputs; k++) aa += a[i * inputs + k] * a[j * inputs + k];
      for (let k = 0; k < outputs; k++) bb += b[k * r + i] * b[k * r + j];
      sum += aa * bb;
    }
  }
  return Math.abs(p.scale) * Math.sqrt(Math.max(0, sum));
}

function listTensors(tensors: readonly StoredTensor[], terminal: Terminal): void {
  const wide = Math.max(0, ...tensors.map((t) => t.name.length));
  for (const t of tensors) {
    terminal.out(`  ${t.name.padEnd(wide)}  ${String(t.dtype).padEnd(5)} [${t.shape}]  ${bytesText(t.bytes)}`);
  }
  const types = new Map<string, number>();
  for (const t of tensors) types.set(t.dtype, (types.get(t.dtype) ?? 0) + 1);
  const elements = tensors.reduce((n, t) => n + t.shape.reduce((a, b) => a * b, 1), 0);
  const bytes = tensors.reduce((n, t) => n + t.bytes, 0);
  const kinds = [...types].map(([type, n]) => `${n} ${type}`).join(", ");
  terminal.out(`${tensors.length} tensors (${kinds}), ${count(elements)} elements, ${bytesText(bytes)}`);
}

/** A metadata value within `width` characters. */
function shown(value: unknown, width: number): string {
  const list = Array.isArray(value) || ArrayBuffer.isView(value) ? Array.from(value as ArrayLike<unknown>) : null;
  const text = list
    ? `[${list.slice(0, 8).map((v) => JSON.stringify(v)).join(", ")}${
      list.length > 8 ? `, … ${list.length} in all` : ""
    }]`
    : typeof value === "string"
    ? JSON.stringify(value)
    : String(value);
  return text.length > width ? `${text.slice(0, Math.max(20, width - 1))}…` : text;
}
