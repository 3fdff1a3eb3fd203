/**
 * A `Backend` over any library that exports the C ABI: shapes are checked, arguments packed into one struct, the status
 * turned into an error with the library's sentence. Nothing here knows CUDA from Metal.
 * @module
 */
import type { Backend, FileStamp, Graph, MemoryInfo, Ops } from "../src/core/backend.ts";
import { check } from "../src/core/check.ts";
import { type Dense, type DType, DTYPES } from "../src/core/dtype.ts";
import { BackendError, MemoryError, ShapeError } from "../src/core/errors.ts";
import { byteLength, type Handle, type Tensor } from "../src/core/tensor.ts";
import { ABI_VERSION, type Arg, OP_NAMES, opEntry, OPS, symbolOf } from "./abi.ts";
import { BASE, EXTRA_STRUCTS, extraEntry, EXTRAS, type Signature, STATUS, STRUCTS } from "./abi_base.ts";
import type { Functions, Library } from "./functions.ts";
import { openLibrary } from "./library.ts";
import { MappedFiles, readUnchanged } from "./mapped_files.ts";
import { Packer } from "./pack.ts";

/** How to open a library as a backend. */
export interface NativeOpts {
  readonly name: Backend["name"];
  /** Path of the shared library. */
  readonly path: string;
  /** Which of the devices; default 0. */
  readonly device?: number;
  /** What activations are stored in; default: what the library prefers. */
  readonly actDtype?: Dense;
  /** Most bytes to hold; default: what the library allows. */
  readonly memoryLimit?: number;
  /** False: files are never device memory, weights are copied. Default true, where the library can. */
  readonly map?: boolean;
  /** Bytes that its operations need besides their tensors, at most; for plans. */
  readonly workspace?: Backend["workspace"];
}

type Base = Functions<typeof BASE>;
/** Those that the library has. */
type Extras = Partial<Functions<typeof EXTRAS>>;
type OpTable = Record<string, { args: ["buf"]; ret: "i32" }>;

/** Reads a text that a C function writes. */
function textOf(write: (out: Uint8Array, cap: number) => number): string {
  let room = new Uint8Array(1024);
  const whole = write(room, room.length);
  if (whole >= room.length) {
    room = new Uint8Array(whole + 1);
    write(room, room.length);
  }
  return new TextDecoder().decode(room.subarray(0, whole));
}

/** Low and high word. */
const split = (n: number): [number, number] => [n >>> 0, Math.floor(n / 4294967296)];
const join = (lo: number, hi: number): number => hi * 4294967296 + lo;

/**
 * Opens a library: right version, a device, its operations.
 * @throws {BackendError} with the reason when the file, the version or the device is not right
 */
export async function openNative(o: NativeOpts): Promise<Backend> {
  const base = await openBase(o), { fn } = base;
  const closers = [base.close];
  const must = (op: string, status: number): void => {
    if (status !== STATUS.ok) throw new BackendError(sentence(`Cannot use ${o.name}`, lastError(fn)), op, status);
  };
  try {
    must("us_device_probe", fn.us_device_probe());
    const have = new Set(textOf(fn.us_ops).split(" "));
    const ops = await openLibrary(o.path, opsOf(have)), extras = await openExtras(o.path, have);
    closers.unshift(ops.close, extras.close);
    must("us_open", fn.us_open(o.device ?? 0));
    closers.unshift(() => void fn.us_close());
    const own = (Object.keys(DTYPES) as DType[]).find((d) => DTYPES[d].code === fn.us_act_dtype());
    const actDtype = o.actDtype ?? (own as Dense | undefined) ?? "f32";
    if (fn.us_supports(DTYPES[actDtype].code, 0) !== 1) {
      throw new BackendError(
        `Cannot keep activations as ${actDtype} on ${o.name}: it has no kernels for that`,
        "us_open",
      );
    }
    const device = textOf((out, cap) => fn.us_device_name(o.device ?? 0, out, cap));
    const functions = {
      base: fn,
      ops: ops.fn,
      extras: o.map === false ? { ...extras.fn, us_map: undefined } : extras.fn,
    };
    const { name, memoryLimit, workspace } = o;
    return new NativeBackend({ name, device, actDtype, memoryLimit, workspace }, functions, [
      ops.close,
      extras.close,
      base.close,
    ]);
  } catch (e) {
    for (const close of closers) close();
    throw e;
  }
}

/** Signatures of those operations that the library has with the arguments this package gives. */
function opsOf(have: ReadonlySet<string>): OpTable {
  const fits = OP_NAMES.filter((op) => have.has(opEntry(op)));
  return Object.fromEntries(fits.map((op) => [symbolOf(op), { args: ["buf"], ret: "i32" }]));
}

/** The extras that it has. */
async function openExtras(path: string, have: ReadonlySet<string>): Promise<{ fn: Extras; close(): void }> {
  const names = (Object.keys(EXTRAS) as (keyof typeof EXTRAS)[]).filter((n) => have.has(extraEntry(n)));
  if (names.length === 0) return { fn: {}, close: () => {} };
  const { fn, close } = await openLibrary(
    path,
    Object.fromEntries(names.map((n): [string, Signature] => [n, EXTRAS[n]])),
  );
  return { fn: fn as Extras, close };
}

function lastError(fn: Base): string {
  return textOf(fn.us_last_error) || "the library gave no reason";
}

/** The library's own sentence, or what it says as the reason of ours. */
function sentence(ours: string, text: string): string {
  return text.startsWith("Cannot ") ? text : `${ours}: ${text}`;
}

/** The functions that every version has, then the version. */
async function openBase(o: NativeOpts): Promise<Library<typeof BASE>> {
  let lib: Library<{ us_abi_version: Signature }>;
  try {
    lib = await openLibrary(o.path, { us_abi_version: BASE.us_abi_version });
  } catch (e) {
    throw new BackendError(`Cannot open the ${o.name} library ${o.path}: ${(e as Error).message}`, "open");
  }
  const version = lib.fn.us_abi_version();
  lib.close();
  if (version !== ABI_VERSION) {
    const rest = `${o.path} is ABI ${version} and this package needs ${ABI_VERSION}; build it again`;
    throw new BackendError(`Cannot open the ${o.name} library: ${rest}`, "open");
  }
  try {
    return await openLibrary(o.path, BASE);
  } catch (e) {
    throw new BackendError(`Cannot open the ${o.name} library ${o.path}: ${(e as Error).message}`, "open");
  }
}

// The operations are put on the prototype below, from the table.
interface NativeBackend extends Ops {}

class NativeBackend implements Backend {
  readonly name: Backend["name"];
  readonly device: string;
  readonly actDtype: Dense;
  readonly workspace: Backend["workspace"];
  readonly renorm?: Backend["renorm"];
  readonly #base: Base;
  readonly #ops: Functions<OpTable>;
  readonly #extras: Extras;
  readonly #mapped = new MappedFiles();
  readonly #closers: readonly (() => void)[];
  readonly #memoryLimit: number;
  readonly #pack = new Packer();
  #open = true;

  constructor(
    o: Pick<Backend, "name" | "device" | "actDtype"> & Pick<NativeOpts, "memoryLimit" | "workspace">,
    functions: { base: Base; ops: Functions<OpTable>; extras: Extras },
    closers: readonly (() => void)[],
  ) {
    this.name = o.name;
    this.device = o.device;
    this.actDtype = o.actDtype;
    this.workspace = o.workspace;
    this.#memoryLimit = o.memoryLimit ?? Infinity;
    this.#base = functions.base;
    this.#ops = functions.ops;
    this.#extras = functions.extras;
    this.#closers = closers;
    const { us_renorm } = functions.extras;
    if (!us_renorm) return;
    this.renorm = (out, x, stat, w, b, o) => {
      check.norm(out, stat, x, w, b, o);
      const words = this.#pack.struct(EXTRA_STRUCTS.us_renorm, [out, x, stat, w, b, +o.plusOne]);
      this.#check(us_renorm(words), "renorm");
    };
  }

  supports(dtype: DType): boolean {
    return this.#base.us_supports(DTYPES[dtype].code, 1) === 1;
  }

  offloads(): string | null {
    const wait = this.#ops.us_slot_wait;
    if (!wait) return "the library was built without it";
    // No slot has this number: a library that has slots at all says so, and nothing else happens.
    const status = wait(this.#pack.struct(OPS.slotWait.args, [0xffffffff]));
    return status === STATUS.unsupported ? lastError(this.#base) : null;
  }

  alloc(bytes: number): Handle {
    this.#makeRoom(bytes);
    const words = this.#pack.words(split(bytes));
    const status = this.#base.us_alloc(words);
    if (status === STATUS.memory) throw this.#tooMuch("allocate", bytes, lastError(this.#base));
    this.#check(status, "alloc");
    return words[2];
  }

  /** Holds the user's own limit, to which what is cached counts too. */
  #makeRoom(bytes: number): void {
    if (this.#memoryLimit === Infinity) return;
    const { active, cached = 0, limit } = this.memory(), free = limit - active;
    if (bytes > free) throw this.#tooMuch("allocate", bytes, `${active} are in use of the ${limit} allowed`);
    if (bytes + cached > free) this.#trim(free - bytes);
  }

  #tooMuch(action: string, bytes: number, why: string): MemoryError {
    const { active, limit } = this.memory();
    return new MemoryError(sentence(`Cannot ${action} ${bytes} bytes on ${this.name}`, why), bytes, limit - active);
  }

  map(file: FileStamp, offset: number, bytes: number): { handle: Handle; byteOffset: number } | null {
    const map = this.#extras.us_map;
    if (!map) return null;
    this.#makeRoom(bytes);
    const path = new TextEncoder().encode(`${file.path}\0`);
    const words = Uint32Array.of(...split(offset), ...split(bytes), 0, 0);
    const mapped = (): Handle | null => {
      const status = map(words, path);
      if (status === STATUS.memory) throw this.#tooMuch("map", bytes, lastError(this.#base));
      if (status !== STATUS.unsupported) this.#check(status, "map");
      return status === STATUS.ok ? words[4] : null;
    };
    const handle = this.#mapped.open(file, mapped, (h) => void this.#base.us_free(h));
    return handle === null ? null : { handle, byteOffset: words[5] };
  }

  free(h: Handle): void {
    this.#check(this.#base.us_free(h), "free");
    this.#mapped.free(h);
  }

  read(dst: Tensor, file: FileStamp, offset: number): boolean {
    const { us_read } = this.#extras, bytes = byteLength(dst);
    if (!us_read) return false;
    const words = Uint32Array.of(dst.handle, ...split(dst.byteOffset), ...split(offset), ...split(bytes));
    const path = new TextEncoder().encode(`${file.path}\0`);
    readUnchanged(file, () => this.#check(us_read(words, path), "read"));
    return true;
  }

  upload(dst: Tensor, src: ArrayBufferView): void {
    const words = this.#transfer(dst, src);
    if (src.byteLength > 0) this.#check(this.#base.us_upload(words, src), "upload");
  }

  async download(src: Tensor, dst: ArrayBufferView): Promise<void> {
    const words = this.#transfer(src, dst);
    await Promise.resolve();
    this.#mapped.check();
    if (dst.byteLength > 0) this.#check(this.#base.us_download(words, dst), "download");
  }

  #transfer(t: Tensor, bytes: ArrayBufferView): Uint32Array {
    if (bytes.byteLength !== byteLength(t)) {
      const sizes = `the array has ${bytes.byteLength} bytes, the tensor ${byteLength(t)}`;
      throw new ShapeError(`Cannot transfer ${t.dtype} [${t.shape}]: ${sizes}`);
    }
    return Uint32Array.of(t.handle, ...split(t.byteOffset), ...split(bytes.byteLength));
  }

  fill(dst: Tensor, value: number): void {
    this.#check(this.#base.us_fill(this.#pack.struct(STRUCTS.us_fill, [dst, value, Math.trunc(value)])), "fill");
  }

  capture(work: () => void): Graph | null {
    const begun = this.#base.us_graph_begin();
    if (begun === STATUS.unsupported) return null;
    this.#check(begun, "capture");
    const words = new Uint32Array(1);
    let done = false;
    try {
      work();
      done = true;
    } finally {
      // A failure of `work` is the one to report; the recording must end all the same.
      const status = this.#base.us_graph_end(words);
      if (done) this.#check(status, "capture");
      else if (status === STATUS.ok) this.#base.us_graph_free(words[0]);
    }
    const graph = words[0];
    return {
      launch: () => this.#check(this.#base.us_graph_launch(graph), "launch"),
      close: () => this.#check(this.#base.us_graph_free(graph), "close graph"),
    };
  }

  async fence(): Promise<void> {
    await Promise.resolve();
    this.#mapped.check();
    this.#check(this.#base.us_fence(), "fence");
  }

  memory(): MemoryInfo {
    const w = new Uint32Array(6);
    this.#check(this.#base.us_memory(w), "memory");
    const device = join(w[4], w[5]) || Infinity, limit = Math.min(device, this.#memoryLimit);
    const info = { active: join(w[0], w[1]), peak: join(w[2], w[3]), limit: limit === Infinity ? 0 : limit };
    return this.#extras.us_cache ? { ...info, cached: this.#trim(Infinity) } : info;
  }

  forget(x: Tensor): void {
    const { us_forget } = this.#extras;
    if (us_forget) this.#check(us_forget(this.#pack.struct(EXTRA_STRUCTS.us_forget, [x])), "forget");
  }

  resetPeak(): void {
    const { us_peak_reset } = this.#extras;
    if (us_peak_reset) this.#check(us_peak_reset(), "reset peak");
  }

  clearCache(): number {
    const { cached = 0 } = this.memory();
    return cached - this.#trim(0);
  }

  /** Gives cached memory back until at most `keep` bytes are left; says how many are. */
  #trim(keep: number): number {
    const { us_cache } = this.#extras;
    if (!us_cache) return 0;
    const words = Uint32Array.of(...(keep === Infinity ? [0xffffffff, 0xffffffff] : split(keep)), 0, 0);
    this.#check(us_cache(words), "cache");
    return join(words[2], words[3]);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      this.#check(this.#base.us_close(), "close");
    } finally {
      this.#mapped.close();
      for (const close of this.#closers) close();
    }
  }

  /** Runs one operation, `symbol` in the library: `values` as the fields of its struct. */
  run(op: keyof Ops, symbol: string, args: readonly Arg[], values: readonly (Tensor | null | number)[]): void {
    const call = this.#ops[symbol];
    if (!call) {
      throw new BackendError(
        `Cannot run ${op} on ${this.name}: the library was built without it, or for other arguments`,
        op,
      );
    }
    this.#check(call(this.#pack.struct(args, values)), op);
  }

  #check(status: number, op: string): void {
    if (status === STATUS.ok) return;
    throw new BackendError(`Cannot run ${op} on ${this.name}: ${lastError(this.#base)}`, op, status, this.device);
  }
}

for (const op of Object.keys(OPS) as (keyof Ops)[]) {
  const { args, flatten } = OPS[op] as { args: readonly Arg[]; flatten(...a: unknown[]): (Tensor | null | number)[] };
  const verify = check[op] as (...a: unknown[]) => void, symbol = symbolOf(op);
  Object.defineProperty(NativeBackend.prototype, op, {
    value(this: NativeBackend, ...given: unknown[]): void {
      verify(...given);
      this.run(op, symbol, args, flatten(...given));
    },
  });
}
