/**
 * llama.cpp's own quantiser: deno run -A quantize.ts JOBS.json. Each job names a GGUF in f16 or f32, a file type, a
 * number of threads and where to write; `importance` is weights by tensor name. The seconds each took are printed as
 * JSON. Structs: llama.h of llama.cpp v0.5.0.
 */
const jobs = JSON.parse(Deno.readTextFileSync(Deno.args[0]!));
const bins = new URL("node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/", import.meta.url).pathname;
const lib = Deno.dlopen(`${bins}libllama.v0.5.0.so`, {
  llama_log_set: { parameters: ["function", "pointer"], result: "void" },
  llama_model_quantize: { parameters: ["buffer", "buffer", "buffer"], result: "u32" },
});
const quiet = new Deno.UnsafeCallback({ parameters: ["i32", "pointer", "pointer"], result: "void" }, (level, text) => {
  if (level >= 4) console.error(Deno.UnsafePointerView.getCString(text!));
});
lib.symbols.llama_log_set(quiet.pointer, null);

/** ggml.h's GGML_TYPE_COUNT: no override. */
const NO_TYPE = 43;
const text = (s: string) => new TextEncoder().encode(`${s}\0`);

interface Job {
  input: string;
  output: string;
  fileType: number;
  threads: number;
  importance?: Record<string, number[]>;
}

/** Memory that structs point to, kept until the end. */
const kept: Uint8Array[] = [];
function addressOf(bytes: Uint8Array<ArrayBuffer>): bigint {
  kept.push(bytes);
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}

/** llama_model_imatrix_data[], ended by a null name. */
function importanceOf(weights: Record<string, number[]>): bigint {
  const entries = Object.entries(weights);
  const table = new DataView(new ArrayBuffer(24 * (entries.length + 1)));
  entries.forEach(([name, values], i) => {
    table.setBigUint64(24 * i, addressOf(text(name)), true);
    table.setBigUint64(24 * i + 8, addressOf(new Uint8Array(Float32Array.from(values).buffer)), true);
    table.setBigUint64(24 * i + 16, BigInt(values.length), true);
  });
  return addressOf(new Uint8Array(table.buffer));
}

const seconds = jobs.map((job: Job) => {
  const params = new DataView(new ArrayBuffer(64));
  if (job.importance) params.setBigUint64(24, importanceOf(job.importance), true);
  [job.threads, job.fileType, NO_TYPE, NO_TYPE].forEach((v, i) => params.setInt32(4 * i, v, true));
  params.setUint8(17, 1); // quantize_output_tensor
  const start = performance.now();
  const status = lib.symbols.llama_model_quantize(text(job.input), text(job.output), new Uint8Array(params.buffer));
  if (status !== 0) throw new Error(`llama_model_quantize of ${job.input} gave ${status}`);
  return (performance.now() - start) / 1000;
});
console.log(JSON.stringify(seconds));
Deno.exit(0);
