import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/**
 * What holds files and native programs to other programs, and minutes of training by the program: the same from every runtime,
 * and half of the suite's time. Deno's suite runs it; the test command says so.
 */
const ONCE = [
  "tests/oracles/**",
  "tests/export/{llama_cpp,smollm2,transformers,quantization}_test.ts",
  "tests/embedded/**",
  "tests/cuda/host_test.ts",
  "tests/wasm/build_test.ts",
  "tests/cli/runtimes_test.ts", // runs all three itself: the same losses from each
];
/**
 * Node runs Deno's engine, V8, and Bun's is another: arithmetic, templates and vocabularies, which ask nothing of a runtime, are held
 * on those two. What Node does in its own way it holds too: native libraries, WASM, workers, files, servers, the program.
 */
const NOT_ON_NODE = [
  "tests/{core,golden,nn,reference,tokenizer}/**",
  "tests/data/{batches,render,shapes,suspicions,templates}_test.ts",
  "tests/export/{importance,merge,real_tokenizers,train_on_quants}_test.ts",
  "tests/formats/{adapter_rank,float16,fuzz,quantize}_test.ts",
  "tests/infer/{golden,long_rope,sample,text,tokenizers}_test.ts",
  "tests/metal/simulator_test.ts", // what the library does; mapped_test.ts holds Node's calls into it
  "tests/models/{adapter,head_adapter,rope}_test.ts",
  "tests/train/{adaptive_rank,checkpointing,low_rank,moment_basis,optimizers,preference,schedule,step}_test.ts",
];
/** Half a minute and more: they start first, so that at the end no core waits for the other. */
const LONG =
  /tests\/(metal\/simulator|embedded\/embedded|oracles\/\w+|export\/(smollm2|quantization|llama_cpp))_test\.ts$/;
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files), isLong = (f: TestSpecification) => LONG.test(f.moduleId);
    return [...sorted.filter(isLong), ...sorted.filter((f) => !isLong(f))];
  }
}
const deno = "Deno" in globalThis, bun = "Bun" in globalThis;

export default defineConfig({
  test: {
    include: ["tests/**/*_test.ts"],
    exclude: ["**/node_modules/**", "tests/gpu/**", ...(deno ? [] : ONCE), ...(deno || bun ? [] : NOT_ON_NODE)],
    setupFiles: ["tests/same_numbers.ts"],
    pool: "forks",
    // Two cores: two files at a time; the heavy files use worker threads of their own.
    maxWorkers: 2,
    sequence: { sequencer: LongFirst },
    // far more than any takes alone: what a crowded machine makes of it is no failure
    testTimeout: 300_000,
    hookTimeout: 300_000,
    reporters: ["default", "./tests/plain_reporter.ts"],
  },
});
