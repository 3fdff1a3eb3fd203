/**
 * What cuda/, metal/, wasm/ and tests/reference implement: one small list of fused operations over device memory.
 * The same list is written as data in ffi/abi.ts, from which the C header follows; a test holds the two together.
 *
 * Letters: N tokens, D model, H query heads, K kv heads, d head size, F ffn, V vocabulary, R LoRA rank, S sequences.
 * Every output is written (=) unless marked +=. Nothing here allocates or waits; inputs and outputs do not overlap
 * unless the op says "in place".
 * @module
 */
import type { Dense, DType } from "./dtype.ts";
import type { Handle, Tensor } from "./tensor.ts";

/** Activation of a gated or plain MLP. `gelu` is the erf form, `gelu_tanh` the tanh form. */
export type Act = "silu" | "gelu" | "gelu_tanh";

/** RMS or layer norm; `plusOne`: the weight is 1 + w (gemma). */
export interface NormOpts {
  kind: "rms" | "layer";
  eps: number;
  plusOne: boolean;
}

/** Causal attention. `window`: a query sees itself and window-1 earlier positions; 0 = all. `softcap` t: t·tanh(s/t); 0 = off. */
export interface AttnOpts {
  scale: number;
  window: number;
  softcap: number;
}

/** c = alpha · op(a) · op(b) + beta · c. Defaults: no transpose, alpha 1, beta 0. */
export interface MatmulOpts {
  transA?: boolean;
  transB?: boolean;
  alpha?: number;
  beta?: 0 | 1;
}

/** Packed sequences: N tokens in S sequences; sequence s is rows cu[s]..cu[s+1]. `maxLen` bounds their lengths. */
export interface Seqs {
  cu: Tensor /* i32 [S+1] */;
  maxLen: number;
}

/** Rotation by `sign`·angle, the result times `factor` (yarn, longrope; 1 otherwise). */
export interface RopeOpts {
  sign: 1 | -1;
  factor: number;
}

/** `softcap` t: logits are t·tanh(z/t) first; `smoothing` ε of label smoothing; `zLoss` times lse². 0 = off. */
export interface LossOpts {
  softcap: number;
  smoothing: number;
  zLoss: number;
}

/**
 * The operations. Tensors are activations (`actDtype`) unless a dtype is named. Norm weights and biases, matmul's bias,
 * adapters and gradients are f32 everywhere; colDot also takes f32 inputs (the step's Σ weight·loss).
 */
export interface Ops {
  /** out[n] = scale · table[ids[n]]. The table may be quantised. */
  embed(
    out: Tensor, /*[N,D]*/
    table: Tensor, /*[V,D]*/
    ids: Tensor, /*i32 [N]*/
    scale: number,
  ): void;
  /** dTable[ids[n]] += scale · dOut[n], in order of n (deterministic). */
  embedBwd(
    dTable: Tensor, /*+= f32 [V,D]*/
    dOut: Tensor, /*[N,D]*/
    ids: Tensor, /*i32 [N]*/
    scale: number,
  ): void;
  /** out = norm(x)·w (+ b) over the last axis; stat is mean and 1/std, kept for the backward. */
  norm(
    out: Tensor, /*[N,D]*/
    stat: Tensor, /*f32 [N,2]*/
    x: Tensor,
    w: Tensor, /*[D]*/
    b: Tensor | null, /*[D]*/
    o: NormOpts,
  ): void;
  /** dx is added to (the residual stream's gradient); dw, db are added to where given. */
  normBwd(
    dx: Tensor, /*+= [N,D]*/
    dw: Tensor | null, /*+= f32 [D]*/
    db: Tensor | null, /*+= f32 [D]*/
    dOut: Tensor,
    x: Tensor,
    w: Tensor,
    stat: Tensor,
    o: NormOpts,
  ): void;
  /**
   * c[M,N] = alpha · op(a)[M,K] · op(b)[K,N] + beta · c (+ bias[N]). Leading axes of a and c are flattened.
   * b may be f16, bf16 or a block format: then it is a weight [out,in], read with transB (forward) or without (input gradient).
   */
  matmul(c: Tensor, a: Tensor, b: Tensor, bias: Tensor | null, o: MatmulOpts): void;
  /** In place on the first 2·freqs.length features of each head, rotate-half layout (feature i pairs with i + rotary/2). */
  rope(
    x: Tensor, /*[N,heads,d]*/
    pos: Tensor, /*i32 [N]*/
    freqs: Tensor, /*f32 [rotary/2]*/
    o: RopeOpts,
  ): void;
  /**
   * Causal attention within each sequence; lse is the log-sum-exp of each row, kept for the backward. Rows outside every
   * sequence (padding past cu[S]) get zeros, here and in the backward's dq, dk, dv. cu may repeat N: empty sequences.
   */
  attention(
    out: Tensor, /*[N,H,d]*/
    lse: Tensor, /*f32 [H,N]*/
    q: Tensor, /*[N,H,d]*/
    k: Tensor, /*[N,K,d]*/
    v: Tensor, /*[N,K,d]*/
    s: Seqs,
    o: AttnOpts,
  ): void;
  attentionBwd(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    dOut: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    s: Seqs,
    o: AttnOpts,
  ): void;
  /** Writes k, v into the caches at sequence seq[n], row pos[n]. */
  cacheWrite(
    kc: Tensor, /*[S,L,K,d]*/
    vc: Tensor,
    k: Tensor, /*[N,K,d]*/
    v: Tensor,
    seq: Tensor, /*i32 [N]*/
    pos: Tensor, /*i32 [N]*/
  ): void;
  /** Query n sees rows 0..pos[n] of sequence seq[n]: one call serves a prefill and the decoding of many requests. */
  attentionCached(
    out: Tensor, /*[N,H,d]*/
    q: Tensor, /*[N,H,d]*/
    kc: Tensor,
    vc: Tensor,
    seq: Tensor, /*i32 [N]*/
    pos: Tensor, /*i32 [N]*/
    o: AttnOpts,
  ): void;
  /** h = act(gate) · up, or act(gate) without up. */
  glu(h: Tensor, /*[N,F]*/ gate: Tensor, up: Tensor | null, act: Act): void;
  /**
   * Also rewrites h, so that h need not be saved between the passes. dGate may be gate's memory, dUp up's, and h dH's: an
   * element is read before it is written.
   */
  gluBwd(
    dGate: Tensor,
    dUp: Tensor | null,
    h: Tensor,
    dH: Tensor,
    gate: Tensor,
    up: Tensor | null,
    act: Act,
  ): void;
  /** out = a + b; out may be a or b. */
  add(out: Tensor, a: Tensor, b: Tensor): void;
  /** out = x, converted between dense types, or decoded from blocks. */
  copy(out: Tensor, x: Tensor): void;
  /** out = factor · x; out may be x. */
  scale(out: Tensor, x: Tensor, factor: number): void;
  /**
   * loss[n] = -log p(target[n]) (+ smoothing, z-loss terms), unweighted; logits become weight[n] · d loss[n] / d logits
   * (with respect to the logits before the soft cap). Weight 0 = masked: the gradient row is zero and loss[n] is 0.
   */
  crossEntropy(
    loss: Tensor, /*f32 [N]*/
    logits: Tensor, /*[N,V] in, out*/
    target: Tensor, /*i32 [N]*/
    weight: Tensor, /*f32 [N]*/
    o: LossOpts,
  ): void;
  /** out += Σ g². */
  sumSquares(out: Tensor, /*+= f32 [1]*/ g: Tensor /*f32*/): void;
  /** hyper[7] = min(1, maxNorm / (√sumSq + 1e-6)), torch's clip_grad_norm_; 1 when maxNorm is 0. */
  clipFactor(hyper: Tensor, /*f32 [8]*/ sumSq: Tensor, /*f32 [1]*/ maxNorm: number): void;
  /** Decoupled AdamW (Loshchilov & Hutter 2019); hyper: lr, b1, b2, eps, weight decay, 1-b1^t, 1-b2^t, clip factor. */
  adamw(
    p: Tensor, /*f32*/
    g: Tensor, /*f32*/
    m: Tensor, /*f32*/
    v: Tensor, /*f32*/
    hyper: Tensor, /*f32 [8]*/
  ): void;
  /**
   * Momentum SGD as torch has it: d = clip·g + wd·p; m = b1·m + d and d = m where m is given; p -= lr·d.
   * hyper is adamw's.
   */
  sgd(p: Tensor, /*f32*/ g: Tensor, /*f32*/ m: Tensor | null, /*f32*/ hyper: Tensor /*f32 [8]*/): void;
  /** Lion (Chen et al. 2023): p = (1 - lr·wd)·p - lr·sign(b1·m + (1-b1)·clip·g), then m = b2·m + (1-b2)·clip·g. */
  lion(p: Tensor, /*f32*/ g: Tensor, /*f32*/ m: Tensor, /*f32*/ hyper: Tensor /*f32 [8]*/): void;
  /**
   * AdamW with moments of 8 bits in blocks of 256 (Dettmers et al. 2022): a moment is code[byte]·absmax[block]. Each block
   * is decoded, updated as in adamw, and encoded against its new absmax with the nearest code, the lower one in a tie; a
   * block of zeros has absmax 0 and the code of 0. The update of p uses the moments before they are encoded.
   */
  adamw8(
    p: Tensor, /*f32 [n], n a multiple of 256*/
    g: Tensor, /*f32 [n]*/
    m: Tensor, /*u8 [n]*/
    v: Tensor, /*u8 [n]*/
    absmax: Tensor, /*f32 [2, n/256]: of m, of v*/
    codes: Tensor, /*f32 [2,256], ascending: of m (signed), of v*/
    hyper: Tensor, /*f32 [8]*/
  ): void;
  /**
   * Adafactor (Shazeer & Stern 2018) without first moment: the second moment of a matrix is the outer product of `row` and
   * `col` over the mean of `row`; where row is null, col holds it whole. u = clip·g / √moment, divided by max(1, rms(u)/d);
   * p = (1 - lr·wd)·p - lr·u. hyper: lr, -, b2 of this step, ε added to (clip·g)², wd, d, -, clip.
   */
  adafactor(
    p: Tensor, /*f32 [O,I], or any shape with row null*/
    g: Tensor, /*f32*/
    row: Tensor | null, /*f32 [O]: mean over I*/
    col: Tensor, /*f32 [I]: mean over O; f32 [n] with row null*/
    hyper: Tensor, /*f32 [8]*/
  ): void;
  /**
   * out[n,j] = x[n,j] + magnitude[n]·u, u uniform in (-1, 1) from the counter-based generator (see core/philox.ts,
   * `symmetric`): NEFTune's noise. out may be x.
   */
  noise(
    out: Tensor, /*[N,D]*/
    x: Tensor, /*[N,D]*/
    magnitude: Tensor, /*f32 [N]*/
    seed: Tensor, /*i32 [2]*/
    stream: number,
  ): void;
  /** out[j] += Σ_n x[n,j] (bias gradients). */
  colSum(out: Tensor, /*+= f32 [D]*/ x: Tensor /*[N,D]*/): void;
  /** out[j] += Σ_n a[n,j] · b[n,j] (DoRA's magnitude gradient). */
  colDot(out: Tensor, /*+= f32 [D]*/ a: Tensor, /*[N,D]*/ b: Tensor /*[N,D]*/): void;
  /** out[n,j] = x[n,j] · s[j]; out may be x. */
  scaleCols(out: Tensor, /*[N,D]*/ x: Tensor, /*[N,D]*/ s: Tensor /*f32 [D]*/): void;
  /** out[o] = ‖w[o,:] + scale · (B·A)[o,:]‖₂ (DoRA, Liu et al. 2024, eq. 5). */
  rowNorm(
    out: Tensor, /*f32 [O]*/
    w: Tensor, /*[O,I] any dtype*/
    a: Tensor, /*f32 [R,I]*/
    b: Tensor, /*f32 [O,R]*/
    scale: number,
  ): void;
  /** out = a / b element by element, f32 (DoRA's m / ‖W + sBA‖). */
  divide(out: Tensor, /*f32*/ a: Tensor, /*f32*/ b: Tensor /*f32*/): void;
  /**
   * out[i] = x[i] / (1-p) where the counter-based generator keeps element i, else 0; the same seed, stream and element
   * give the same answer in every pass and on every backend (see core/philox.ts). seed is i32 [2] on the device.
   */
  dropout(out: Tensor, x: Tensor, seed: Tensor, /*i32 [2]*/ stream: number, p: number): void;
  /**
   * Rows from..from+n of a weight for 8-bit matrix units, each 128 x 128 elements with scale amax/448; a product with such a
   * weight also rounds its other input to e4m3, one scale a row. Backends whose `supports("fp8_128")` is false refuse it.
   */
  quantizeFp8(out: Tensor, /*fp8_128 [R,C]*/ x: Tensor, /*[n,C] dense*/ from: number): void;
  /**
   * Host memory for `stash` and `fetch`: `bytes` of it under a number of the caller's; 0 gives it back. Not while a graph is
   * recorded. A backend whose device memory is the host's refuses these four by name (`Backend.offloads`).
   */
  hostSlot(slot: number, bytes: number): void;
  /** Begins to copy x into the slot beside what is launched next; x must stay as it is until `slotWait`. */
  stash(slot: number, x: Tensor): void;
  /** Begins to copy what was stashed back, after all that was launched; out is nobody's until `slotWait`. */
  fetch(out: Tensor, slot: number): void;
  /** What is launched from now on runs after the slot's last copy. */
  slotWait(slot: number): void;
}

/** A captured step. */
export interface Graph {
  launch(): void;
  close(): void;
}

/** Bytes on the device: now in use, most ever in use, what it has (0 = unknown). */
export interface MemoryInfo {
  active: number;
  peak: number;
  limit: number;
  /** Held from the system and not in use now; absent: nothing is kept. */
  cached?: number;
}

/** Which file a path led to when it was opened, and the state it was in (as node:fs reports both). */
export interface FileStamp {
  readonly path: string;
  readonly dev: number;
  readonly ino: number;
  readonly size: number;
  readonly mtimeMs: number;
}

/** What the operations' own memory depends on: tokens of the largest pass with gradients (0: none), query heads, their size. */
export interface WorkspaceShape {
  readonly tokens: number;
  readonly heads: number;
  readonly headDim: number;
  /** Columns of all that products with 8-bit weights read at once, at most; 0 without such weights. */
  readonly columns8: number;
}

/** Device memory, transfers, and the operations. */
export interface Backend extends Ops {
  readonly name: "cuda" | "metal" | "wasm" | "reference" | "recording";
  /** One line for people: the device, its memory, threads or driver. */
  readonly device: string;
  /** What activations are stored in: f32 on wasm and reference (f64 inside the reference), bf16 or f16 on GPUs. */
  readonly actDtype: Dense;
  /** Whether matmul's b, embed's table and copy's x may be of this type where they lie. */
  supports(dtype: DType): boolean;
  /** Bytes that operations of such passes need besides their tensors, at most; absent: none, or not of `memory`. */
  readonly workspace?: (pass: WorkspaceShape) => number;
  /** Whether host memory is apart from the device's, and tensors can wait in it: null, or why not. */
  offloads(): string | null;
  /** @throws {MemoryError} when the device has not that many bytes left */
  alloc(bytes: number): Handle;
  free(h: Handle): void;
  /**
   * Bytes of a file as device memory where they lie, read only: nothing is read or copied now. The memory is freed like any
   * other; a file that changes meanwhile is an error of the next `download` or `fence`. Absent where no device memory can
   * be a file's.
   * @returns where the range starts; null when this one cannot be used so and must be uploaded
   * @throws {MemoryError} when the device has not that many bytes left
   */
  map?(file: FileStamp, offset: number, bytes: number): { handle: Handle; byteOffset: number } | null;
  /**
   * Bytes of a file from `offset` to all of `dst`, as they lie, by several threads. Absent, or false: the device does not,
   * read on the host and `upload`.
   * @throws {BackendError} when the file cannot be read, or is not what it was when it was opened
   */
  read?(dst: Tensor, file: FileStamp, offset: number): boolean;
  /** Bytes of `src` to the start of `dst`; returns when `src` may be reused. Sizes must be equal. */
  upload(dst: Tensor, src: ArrayBufferView): void;
  /** Waits for what was launched, then copies. The only way to read, with `fence`. */
  download(src: Tensor, dst: ArrayBufferView): Promise<void>;
  /** Every element = value (dense types). */
  fill(dst: Tensor, value: number): void;
  /** Records what `work` launches; null when the device has no graphs (then `work` has not run). */
  capture(work: () => void): Graph | null;
  /** Resolves when everything launched so far has finished; throws what failed meanwhile. */
  fence(): Promise<void>;
  memory(): MemoryInfo;
  /**
   * What `x` holds is read by no later call: a backend that has not written it yet need not. Absent where that saves nothing.
   * The next call that takes this memory must write it before it reads it.
   */
  forget?(x: Tensor): void;
  /**
   * out = what `norm` gave, once more, from its `stat`: the same bits. Where it is absent `norm` does it; where it is there it may
   * cost nothing, if only matmuls that sum over the rows read `out` and it is forgotten after them.
   */
  renorm?(
    out: Tensor, /*[N,D]*/
    x: Tensor, /*[N,D]*/
    stat: Tensor, /*f32 [N,2]*/
    w: Tensor, /*[D]*/
    b: Tensor | null, /*[D]*/
    o: NormOpts,
  ): void;
  /** From now on `peak` counts from what is in use now. */
  resetPeak?(): void;
  /** Gives cached bytes back to the system and says how many; absent where none can be given back. */
  clearCache?(): number;
  close(): void;
}
