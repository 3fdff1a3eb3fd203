import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/**
 * What holds files and native programs to other programs: the same from every runtime, and a third of the suite's time. Deno's
 * suite runs it; the test command says so.
 */
const ONCE = [
  "tests/oracles/**",
  "tests/export/{llama_cpp,smollm2,transformers,quantization}_test.ts",
  "tests/cuda/host_test.ts",
  "tests/wasm/build_test.ts",
  "tests/cli/runtimes_test.ts", // runs all three itself
];
/**
 * Minutes of simulation and of the embedded model's training, and tokenizers through GGUF, whose regular expressions Bun's engine
 * reads in its own way: Deno's and Bun's suites hold them.
 */
const NOT_ON_NODE = ["tests/metal/simulator_test.ts", "tests/embedded/**", "tests/export/real_tokenizers_test.ts"];
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
