/**
 * How much memory does a LoRA step need, by what stays between the passes? Llama-3.2-3B's shape, r = 16 on all seven linears,
 * bf16, AdamW in f32; nothing is computed: the same plan a run is refused by (src/train/plan.ts).
 *
 *   deno run -A bench/plan.ts [--batch 2,4,8] [--length 2048] [--layers 28] [--chunk 1024] [--budget 16]
 *
 * --budget: GiB that `selective` may take; --offload: it moves the blocks' inputs to the host.
 * @module
 */
import { parseArgs } from "node:util";
import { type CheckpointMode, chooseCheckpointing } from "../src/train/checkpointing.ts";
import { llamaWithoutWeights, LORA, memoryLine } from "./llama_3b.ts";

const { values: flags } = parseArgs({
  options: {
    batch: { type: "string", default: "2,4,8" },
    length: { type: "string", default: "2048" },
    layers: { type: "string", default: "28" },
    chunk: { type: "string" },
    budget: { type: "string", default: "16" },
    offload: { type: "boolean", default: false },
  },
});
const source = llamaWithoutWeights(Number(flags.layers)), length = Number(flags.length);
for (const batch of flags.batch.split(",").map(Number)) {
  for (const mode of ["none", "selective", "full", "offload"] satisfies CheckpointMode[]) {
    const from = performance.now();
    const planned = chooseCheckpointing(source, { actDtype: "bf16", supports: () => true }, {
      ...{ mode, budget: Number(flags.budget) * 2 ** 30, lora: LORA },
      ...flags.offload && mode === "selective" ? { offload: true } : {},
      pass: {
        ...{ maxTokens: batch * length, maxSequences: batch, maxLength: length },
        ...flags.chunk ? { chunk: Number(flags.chunk) } : {},
      },
      optim: {
        ...{ name: "adamw_torch", lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, maxGradNorm: 1 },
        ...{ schedule: "constant", warmupSteps: 0, totalSteps: 1 },
      },
    });
    const ms = (performance.now() - from).toFixed(0);
    console.log(`ROW ${batch} x ${length} ${mode.padEnd(9)} ${memoryLine(planned)}; planned in ${ms} ms`);
  }
}
