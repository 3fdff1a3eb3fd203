/** `doctor`: the runtime, every backend with its device or the reason it was refused, where files are kept. @module */
import { availableParallelism, platform, release, totalmem } from "node:os";
import process from "node:process";
import { defaultCache } from "../../hub/mod.ts";
import { ConfigError } from "../../core/errors.ts";
import { type CliContext, openBackend } from "../context.ts";
import type { Settings } from "../settings.ts";
import { bytesText } from "../terminal.ts";

/** Runs the command; 1 when no backend opens. */
export async function run(settings: Settings, context: CliContext): Promise<number> {
  if (settings.config.metal) return await examineMetal(settings, context);
  const { terminal, candidates } = context;
  terminal.out(`Runtime   ${runtimeName()}`);
  terminal.out(
    `System    ${platform()} ${release()} ${process.arch}, ${availableParallelism()} cores, ${bytesText(totalmem())}`,
  );
  terminal.out(`Hub cache ${defaultCache()}`);
  const { backend } = settings.config;
  let works = 0;
  for (const candidate of candidates.filter((c) => backend === "auto" || c.name === backend)) {
    const name = candidate.name.padEnd(9);
    try {
      const one = { ...settings, config: { ...settings.config, backend: candidate.name as typeof backend } };
      const be = await openBackend(one, { ...context, terminal: { ...terminal, note: () => {} } });
      const { limit } = be.memory();
      terminal.out(
        `${name} ${terminal.paint("green", "works")}: ${be.device}${limit ? `, ${bytesText(limit)} at most` : ""}`,
      );
      be.close();
      works++;
    } catch (e) {
      terminal.out(`${name} ${terminal.paint("yellow", "refused")}: ${(e as Error).message}`);
    }
  }
  if (works === 0) terminal.out("No backend works here: nothing can be trained or served");
  return works > 0 ? 0 : 1;
}

/** Name and version of the runtime. */
export function runtimeName(): string {
  const { deno, bun, node } = process.versions as Record<string, string | undefined>;
  return deno ? `Deno ${deno}` : bun ? `Bun ${bun}` : `Node ${node}`;
}

/** `doctor --metal`: the report of a Mac's GPU, every operation beside the CPU's. */
async function examineMetal(settings: Settings, context: CliContext): Promise<number> {
  const metal = context.candidates.find((c) => c.name === "metal");
  if (!metal?.examine) throw new ConfigError("Cannot examine Metal: this build has no Metal backend");
  const cpu = { ...settings, config: { ...settings.config, backend: "wasm" as const } };
  const against = await openBackend(cpu, { ...context, terminal: { ...context.terminal, note: () => {} } });
  try {
    return await metal.examine(against, (line) => context.terminal.out(line)) ? 0 : 1;
  } finally {
    against.close();
  }
}
