/**
 * One square f32 product by another library: `deno run -A matmul.mjs onnx|tfjs SIZE THREADS`, in bun and node alike.
 * Prints one line of JSON: library, version, milliseconds (best of several), a check sum.
 */
import process from "node:process";

const [library, size, threads] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4] ?? 1)];
const a = new Float32Array(size * size).map((_, i) => (i % 7) - 3), b = a.map((_, i) => (i % 5) - 2);

/** The ONNX file of one MatMul, by hand: protobuf fields of ModelProto, GraphProto, NodeProto (onnx.proto). */
function onnxModel(n) {
  const varint = (v) => v < 128 ? [v] : [(v & 127) | 128, ...varint(v >> 7)];
  const number = (field, v) => [...varint(field << 3), ...varint(v)];
  const bytes = (field, v) => [...varint((field << 3) | 2), ...varint(v.length), ...v];
  const text = (s) => [...new TextEncoder().encode(s)];
  const shape = bytes(2, [...bytes(1, number(1, n)), ...bytes(1, number(1, n))]);
  const value = (name) => [...bytes(1, text(name)), ...bytes(2, bytes(1, [...number(1, 1), ...shape]))];
  const node = [...bytes(1, text("A")), ...bytes(1, text("B")), ...bytes(2, text("C")), ...bytes(4, text("MatMul"))];
  const graph = [
    bytes(1, node),
    bytes(2, text("g")),
    bytes(11, value("A")),
    bytes(11, value("B")),
    bytes(12, value("C")),
  ];
  return new Uint8Array([...number(1, 8), ...bytes(7, graph.flat()), ...bytes(8, [...bytes(1, []), ...number(2, 13)])]);
}

async function onnx() {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(onnxModel(size), { executionProviders: ["wasm"] });
  const A = new ort.Tensor("float32", a, [size, size]), B = new ort.Tensor("float32", b, [size, size]);
  const run = async () => (await session.run({ A, B })).C.data;
  return { version: ort.env.versions.common, run };
}

async function tfjs() {
  const tf = await import("@tensorflow/tfjs-core"), wasm = await import("@tensorflow/tfjs-backend-wasm");
  wasm.setThreadsCount(threads);
  await tf.setBackend("wasm");
  await tf.ready();
  const A = tf.tensor2d(a, [size, size]), B = tf.tensor2d(b, [size, size]);
  let last = null;
  const run = () => {
    last?.dispose();
    last = tf.matMul(A, B);
    return Promise.resolve(last);
  };
  return { version: tf.version_core, run };
}

/** Milliseconds: of this process's CPU with one thread, which other work on the machine disturbs less, else of the clock. */
function now() {
  const { user, system } = process.cpuUsage();
  return threads === 1 ? (user + system) / 1000 : performance.now();
}

const { version, run } = await (library === "onnx" ? onnx() : tfjs());
let best = Infinity;
for (let i = 0; i < 12; i++) {
  const start = now();
  await run();
  best = Math.min(best, now() - start);
}
const result = await run(), values = result.dataSync ? result.dataSync() : result;
const sum = values.reduce((s, v) => s + v, 0);
console.log(JSON.stringify({ library, version, ms: best, sum }));
process.exit(0);
