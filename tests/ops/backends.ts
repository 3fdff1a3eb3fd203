/**
 * The backends present on this machine, opened once a test file: the reference; WASM with each of its kernel sets, on
 * one thread and on several; what cuda/ and metal/ offer, in each activation type. A refusal keeps its reason.
 */
import { existsSync } from "node:fs";
import type { Candidate, OpenOpts } from "../../ffi/select.ts";
import type { Backend } from "../../src/core/backend.ts";
import { createWasmBackend, runsPanels } from "../../wasm/mod.ts";
import { ReferenceBackend } from "../reference/mod.ts";

/** An opened backend under a name for people, "cuda bf16". */
export interface Present {
  readonly label: string;
  readonly be: Backend;
}

/** What is here, and who refused with which words. */
export interface Found {
  readonly present: readonly Present[];
  readonly refused: readonly string[];
}

/** The candidate that a native backend's folder exports; null while there is no such folder. */
async function candidateOf(folder: string): Promise<Candidate | null> {
  const url = new URL(`../../${folder}/mod.ts`, import.meta.url);
  return existsSync(url) ? (await import(url.href) as { candidate: Candidate }).candidate : null;
}

/** Opens all; the caller closes them. */
export async function findBackends(): Promise<Found> {
  const present: Present[] = [
    { label: "reference", be: new ReferenceBackend() },
    { label: "wasm fma", be: await createWasmBackend({ kernels: "fma", threads: 1 }) },
    { label: "wasm mul, 3 threads", be: await createWasmBackend({ kernels: "mul", threads: 3 }) },
  ];
  const refused: string[] = [];
  if (runsPanels()) {
    for (const threads of [1, 2]) {
      present.push({ label: `wasm panels, ${threads}`, be: await createWasmBackend({ kernels: "panels", threads }) });
    }
  } else refused.push("wasm panels: this engine has no structs of vectors");
  for (const folder of ["cuda", "metal"]) {
    const candidate = await candidateOf(folder);
    if (!candidate) continue;
    for (const actDtype of ["f32", "bf16", "f16"] as const) {
      const o: OpenOpts = { actDtype };
      try {
        present.push({ label: `${folder} ${actDtype}`, be: await candidate.open(o) });
      } catch (e) {
        refused.push(`${folder} ${actDtype}: ${(e as Error).message}`);
      }
    }
  }
  return { present, refused };
}
