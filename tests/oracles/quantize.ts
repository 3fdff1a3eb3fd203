/**
 * llama.cpp's own quantiser: deno run -A quantize.ts JOBS.json. Each job names a GGUF in f16 or f32, a file type, a
 * number of threads and where to write; the seconds each took are printed as JSON. Struct: llama.h of llama.cpp v0.5.0.
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

const seconds = jobs.map((job: { input: string; output: string; fileType: number; threads: number }) => {
  const params = new DataView(new ArrayBuffer(64));
  [job.threads, job.fileType, NO_TYPE, NO_TYPE].forEach((v, i) => params.setInt32(4 * i, v, true));
  params.setUint8(17, 1); // quantize_output_tensor
  const start = performance.now();
  const status = lib.symbols.llama_model_quantize(text(job.input), text(job.output), new Uint8Array(params.buffer));
  if (status !== 0) throw new Error(`llama_model_quantize of ${job.input} gave ${status}`);
  return (performance.now() - start) / 1000;
});
console.log(JSON.stringify(seconds));
Deno.exit(0);
