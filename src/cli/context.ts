/** What every command is given. @module */
import type { Candidate } from "../../ffi/select.ts";
import { selectBackend } from "../../ffi/select.ts";
import type { Backend } from "../core/backend.ts";
import type { BlockCodec } from "../core/block_codec.ts";
import type { Settings } from "./settings.ts";
import type { Terminal } from "./terminal.ts";

/** The world of a command. */
export interface CliContext {
  /** How the user called us: "unsloth". */
  readonly program: string;
  readonly terminal: Terminal;
  /** Backends in the order of preference. */
  readonly candidates: readonly Candidate[];
  /** Opens the encoder of GGUF's block formats. */
  readonly openCodec: () => Promise<BlockCodec>;
  /** Folder of this package, where models/embedded lies. */
  readonly packageUrl: URL;
  /** Aborted at the first SIGINT; the second ends the process. */
  readonly signal: AbortSignal;
}

/** A command: settings in, exit status out. */
export type RunCommand = (settings: Settings, context: CliContext) => Promise<number>;

/** Opens the backend the settings ask for and prints the line about it. */
export function openBackend(settings: Settings, context: CliContext): Promise<Backend> {
  const { backend, device, num_threads, dtype, memory_limit } = settings.config;
  const types = { float32: "f32", bfloat16: "bf16", float16: "f16" } as const;
  return selectBackend({
    backend,
    candidates: context.candidates,
    log: (line) => context.terminal.note(line),
    ...(device === null ? {} : { device }),
    ...(num_threads === null ? {} : { threads: num_threads }),
    ...(memory_limit === null ? {} : { memoryLimit: memory_limit * 1e9 }),
    ...(dtype === null ? {} : { actDtype: types[dtype] }),
  });
}
