/**
 * A backend that runs nothing: it keeps the list of calls and counts memory. It answers "how much will this need"
 * before a model is loaded, and lets a test hold step two to the calls and handles of step one.
 * @module
 */
import type { Backend, Graph, MemoryInfo, Ops } from "./backend.ts";
import { check } from "./check.ts";
import type { Dense, DType } from "./dtype.ts";
import { BackendError, MemoryError } from "./errors.ts";
import type { Handle, Tensor } from "./tensor.ts";

/** One call: what was asked, with the arguments as given. */
export interface Call {
  readonly op: keyof Ops | "alloc" | "free" | "upload" | "download" | "fill" | "fence" | "renorm";
  readonly args: readonly unknown[];
}

/** What the recording stands for. */
export interface RecordingOpts {
  /** Activation type of the backend that is being planned for. Default f32. */
  readonly actDtype?: Dense;
  /** Whether it has `renorm`, which decides what is kept. Default false. */
  readonly renorm?: boolean;
  /** Bytes that may be in use at once. Default: any number. */
  readonly limit?: number;
}

/** Runs nothing; every shape is checked as a real backend would. */
export class RecordingBackend implements Backend {
  readonly name = "recording";
  readonly device: string = "recording: runs nothing";
  readonly actDtype: Dense;
  readonly renorm?: Backend["renorm"];
  /** Calls in order; a caller may empty it between steps. */
  readonly calls: Call[] = [];
  readonly #limit: number;
  readonly #live = new Map<Handle, number>();
  #next = 1;
  #active = 0;
  #peak = 0;

  constructor(o: RecordingOpts = {}) {
    this.actDtype = o.actDtype ?? "f32";
    this.#limit = o.limit ?? Infinity;
    if (o.renorm) this.renorm = (...args) => void this.calls.push({ op: "renorm", args });
  }

  /** Removes and returns the calls so far: `const first = be.take()` after a step. */
  take(): Call[] {
    return this.calls.splice(0);
  }

  supports(_: DType): boolean {
    return true;
  }

  offloads(): null {
    return null;
  }

  alloc(bytes: number): Handle {
    if (this.#active + bytes > this.#limit) {
      const left = this.#limit - this.#active;
      throw new MemoryError(`Cannot allocate ${bytes} bytes: ${left} of ${this.#limit} are left`, bytes, left);
    }
    this.calls.push({ op: "alloc", args: [bytes] });
    this.#active += bytes;
    this.#peak = Math.max(this.#peak, this.#active);
    this.#live.set(this.#next, bytes);
    return this.#next++;
  }

  free(h: Handle): void {
    const bytes = this.#live.get(h);
    if (bytes === undefined) throw new BackendError(`Cannot free handle ${h}: it was freed or never made`, "free");
    this.calls.push({ op: "free", args: [h] });
    this.#live.delete(h);
    this.#active -= bytes;
  }

  upload(dst: Tensor, src: ArrayBufferView): void {
    this.calls.push({ op: "upload", args: [dst, src.byteLength] });
  }

  /** Leaves `dst` as it is. */
  download(src: Tensor, dst: ArrayBufferView): Promise<void> {
    this.calls.push({ op: "download", args: [src, dst.byteLength] });
    return Promise.resolve();
  }

  fill(dst: Tensor, value: number): void {
    this.calls.push({ op: "fill", args: [dst, value] });
  }

  capture(_: () => void): Graph | null {
    return null;
  }

  fence(): Promise<void> {
    this.calls.push({ op: "fence", args: [] });
    return Promise.resolve();
  }

  memory(): MemoryInfo {
    return { active: this.#active, peak: this.#peak, limit: Number.isFinite(this.#limit) ? this.#limit : 0 };
  }

  close(): void {
    this.#live.clear();
    this.#active = 0;
  }

  #record<K extends keyof Ops>(op: K): (...args: Parameters<Ops[K]>) => void {
    return (...args) => {
      (check[op] as (...a: Parameters<Ops[K]>) => void)(...args);
      this.calls.push({ op, args });
    };
  }

  readonly embed: Ops["embed"] = this.#record("embed");
  readonly embedBwd: Ops["embedBwd"] = this.#record("embedBwd");
  readonly norm: Ops["norm"] = this.#record("norm");
  readonly normBwd: Ops["normBwd"] = this.#record("normBwd");
  readonly matmul: Ops["matmul"] = this.#record("matmul");
  readonly rope: Ops["rope"] = this.#record("rope");
  readonly attention: Ops["attention"] = this.#record("attention");
  readonly attentionBwd: Ops["attentionBwd"] = this.#record("attentionBwd");
  readonly cacheWrite: Ops["cacheWrite"] = this.#record("cacheWrite");
  readonly attentionCached: Ops["attentionCached"] = this.#record("attentionCached");
  readonly glu: Ops["glu"] = this.#record("glu");
  readonly gluBwd: Ops["gluBwd"] = this.#record("gluBwd");
  readonly add: Ops["add"] = this.#record("add");
  readonly copy: Ops["copy"] = this.#record("copy");
  readonly scale: Ops["scale"] = this.#record("scale");
  readonly crossEntropy: Ops["crossEntropy"] = this.#record("crossEntropy");
  readonly sumSquares: Ops["sumSquares"] = this.#record("sumSquares");
  readonly clipFactor: Ops["clipFactor"] = this.#record("clipFactor");
  readonly adamw: Ops["adamw"] = this.#record("adamw");
  readonly sgd: Ops["sgd"] = this.#record("sgd");
  readonly lion: Ops["lion"] = this.#record("lion");
  readonly adamw8: Ops["adamw8"] = this.#record("adamw8");
  readonly adafactor: Ops["adafactor"] = this.#record("adafactor");
  readonly noise: Ops["noise"] = this.#record("noise");
  readonly colSum: Ops["colSum"] = this.#record("colSum");
  readonly colDot: Ops["colDot"] = this.#record("colDot");
  readonly scaleCols: Ops["scaleCols"] = this.#record("scaleCols");
  readonly rowNorm: Ops["rowNorm"] = this.#record("rowNorm");
  readonly divide: Ops["divide"] = this.#record("divide");
  readonly dropout: Ops["dropout"] = this.#record("dropout");
  readonly quantizeFp8: Ops["quantizeFp8"] = this.#record("quantizeFp8");
  readonly hostSlot: Ops["hostSlot"] = this.#record("hostSlot");
  readonly stash: Ops["stash"] = this.#record("stash");
  readonly fetch: Ops["fetch"] = this.#record("fetch");
  readonly slotWait: Ops["slotWait"] = this.#record("slotWait");
}

/** One line a call, `matmul 1+0 f32[4,8] 2+256 f32[8,8] null {"transB":true}`: equal lines mean equal launches. */
export function describe(call: Call): string {
  return [call.op, ...call.args.map(describeArg)].join(" ");
}

function describeArg(a: unknown): string {
  if (typeof a !== "object" || a === null) return String(a);
  if ("handle" in a && "shape" in a) {
    const t = a as Tensor;
    return `${t.handle}+${t.byteOffset} ${t.dtype}[${t.shape}]`;
  }
  if ("cu" in a && "maxLen" in a) return `${describeArg(a.cu)} maxLen ${a.maxLen}`;
  return JSON.stringify(a);
}
