/**
 * Chooses the backend: the one that was named, or the first of the candidates that opens. A candidate that is passed
 * over says why.
 * @module
 */
import type { Backend } from "../src/core/backend.ts";
import type { Dense } from "../src/core/dtype.ts";
import { BackendError, ConfigError } from "../src/core/errors.ts";

/** What the user may say about a backend; each takes what concerns it. */
export interface OpenOpts {
  /** Which of the GPUs; then no CPU backend will do. Default: the first, or none. */
  readonly device?: number;
  /** What activations are stored in; default: the backend's choice. */
  readonly actDtype?: Dense;
  /** Threads of a CPU backend; default: the machine's. */
  readonly threads?: number;
  /** Most bytes of device memory to use; default: all there is. */
  readonly memoryLimit?: number;
  /** Path of the native library, instead of the one that ships. */
  readonly library?: string;
}

/** A backend that may or may not work on this machine. */
export interface Candidate {
  readonly name: Backend["name"];
  /** @throws {Error} with the reason when it cannot be used here */
  open(o: OpenOpts): Promise<Backend>;
  /**
   * Compares every operation with `against`, measures, and writes a report: what `doctor --metal` does.
   * @returns whether every operation is right
   */
  examine?(against: Backend, log: (line: string) => void): Promise<boolean>;
}

/** What to choose from, and by which words. */
export interface SelectOpts extends OpenOpts {
  /** "auto", or a candidate's name. */
  readonly backend: string;
  /** In order of preference. */
  readonly candidates: readonly Candidate[];
  /** Gets one line a refusal and one for the choice. */
  readonly log?: (line: string) => void;
}

/**
 * Opens a backend.
 * @returns the named backend, or with "auto" the first candidate that opens
 * @throws {ConfigError} for a name that no candidate has
 * @throws {BackendError} when the named one, or all of them, refuse; the message holds every reason
 */
export async function selectBackend(o: SelectOpts): Promise<Backend> {
  const named = o.backend === "auto" ? o.candidates : o.candidates.filter((c) => c.name === o.backend);
  const wanted = o.device === undefined ? named : named.filter((c) => c.name !== "wasm");
  if (named.length > wanted.length && wanted.length === 0) {
    throw new ConfigError(`Cannot use device ${o.device} of backend "${o.backend}": it computes on the CPU`);
  }
  if (wanted.length === 0) {
    const names = ["auto", ...o.candidates.map((c) => c.name)].join(", ");
    throw new ConfigError(`Cannot use backend "${o.backend}": it must be one of ${names}`);
  }
  const refusals: string[] = [];
  for (const candidate of wanted) {
    try {
      const be = await candidate.open(o);
      for (const line of refusals) o.log?.(line);
      o.log?.(`Backend ${be.name}: ${be.device}`);
      return be;
    } catch (e) {
      if (wanted.length === 1) throw e;
      refusals.push(`Backend ${candidate.name} refused: ${(e as Error).message}`);
    }
  }
  throw new BackendError(`Cannot open any backend:\n${refusals.join("\n")}`, "open");
}
