/**
 * The whole model: embedding, blocks, final norm, head. One class serves every family; what differs is in `ModelConfig`.
 *
 * A training pass is `forward` (keep), `loss` (which gives the gradient of hidden), `backward`, on one run; then the arena
 * is released. Evaluation and decoding are `forward` and `logits` or `loss` without keep. Nothing here waits or allocates
 * outside the run's arena, so the same calls in the same order use the same addresses.
 * @module
 */
import type { Backend } from "../core/backend.ts";
import { ShapeError } from "../core/errors.ts";
import type { Tensor } from "../core/tensor.ts";
import { Attention, type DeviceRope } from "./attention.ts";
import { Block, Residual } from "./block.ts";
import type { Checkpointing } from "./checkpoint.ts";
import type { ModelConfig } from "./config.ts";
import { Embedding } from "./embedding.ts";
import { Head, type LossInput } from "./head.ts";
import { Linear } from "./linear.ts";
import type { Lora } from "./lora.ts";
import { Mlp } from "./mlp.ts";
import type { Param, Run, Slot } from "./module.ts";
import { Norm } from "./norm.ts";
import { Offload } from "./offload.ts";
import type { Params } from "./params.ts";
import { withKeep } from "./run.ts";

/** How one linear is adapted; its matrices are found among the parameters by name. */
export interface AdapterSpec {
  /** alpha/R or alpha/√R. */
  readonly scale: number;
  readonly dropout: number;
}

/** What a decoder is built from. */
export interface DecoderInit {
  readonly be: Backend;
  readonly config: ModelConfig;
  /** Frozen tensors by our names: `embed`, `norm`, `head`, `layers.{n}.q`, `layers.{n}.q.bias`, … */
  readonly weights: ReadonlyMap<string, Tensor>;
  /** Trained tensors by transformers' / PEFT's names; null: nothing is trained. */
  readonly params: Params | null;
  /** transformers' module of one of our names: `layers.0.q` is `model.layers.0.self_attn.q_proj`. */
  moduleName(ours: string): string;
  /** By transformers' module name. */
  readonly adapters: ReadonlyMap<string, AdapterSpec>;
  /** What stays of each block between the passes. */
  readonly checkpoint: Checkpointing;
  /** Longest sequence, in tokens, the rotary frequencies are first set for. */
  readonly maxLength: number;
}

/** A decoder-only language model on one backend. */
export class Decoder {
  readonly config: ModelConfig;
  readonly #init: DecoderInit;
  readonly #embedding: Embedding;
  /** Blocks below the lowest that learns: nothing of them stays between the passes, and they have no backward. */
  readonly #below: readonly Block[];
  readonly #learning: readonly Block[];
  readonly #norm: Norm;
  readonly #head: Head;
  readonly #ropes: (DeviceRope | null)[] = [];
  /** null: the blocks' inputs stay on the device. */
  readonly #offload: Offload | null;
  #ropeSlab = 0;
  #length = 0;

  constructor(init: DecoderInit) {
    this.#init = init;
    this.config = init.config;
    const { config: c } = init;
    this.#placeRopes();
    this.prepare(init.maxLength);
    this.#embedding = this.#embed();
    const layers = Array.from({ length: c.layers }, (_, n) => this.#block(n));
    const found = this.#embedding.trained ? 0 : layers.findIndex((l) => l.trained),
      lowest = found < 0 ? c.layers : found;
    this.#below = layers.slice(0, lowest);
    this.#learning = layers.slice(lowest);
    this.#offload = init.checkpoint.offload ? new Offload(init.be, this.#learning.length) : null;
    this.#norm = this.#normAt("norm", c.dim);
    this.#head = new Head(this.#headLinear(), c.vocab, c.logitSoftcap);
  }

  /** Trained tensors. */
  params(): readonly Param[] {
    return this.#init.params?.list ?? [];
  }

  /**
   * Sets the rotary frequencies for runs whose longest sequence is `longest` tokens; of consequence only to the families
   * whose frequencies depend on it (dynamic, longrope). Call it between steps, never inside one.
   */
  prepare(longest: number): void {
    if (longest === this.#length) return;
    this.#length = longest;
    this.#ropes.forEach((r, n) => {
      if (!r || this.#ropes.indexOf(r) < n) return;
      const { freqs, factor } = this.config.rope(n, longest)!;
      this.#init.be.upload(r.freqs, Float32Array.from(freqs));
      r.factor = factor;
    });
  }

  /** Places host memory for training passes of up to `n` tokens, if the blocks' inputs wait there; 0: gives it back. */
  placeOffload(n: number): void {
    if (n > 0) this.#offload?.place(n, this.config.dim);
    else this.#offload?.close();
  }

  /** Host bytes that `placeOffload` takes. */
  offloadBytes(n: number): number {
    return this.#offload?.bytes(n, this.config.dim) ?? 0;
  }

  /** ids to hidden states after the final norm. */
  forward(ids: Tensor, /*i32 [N]*/ run: Run): Tensor /*[N,D]*/ {
    const { arena } = run, [n] = ids.shape, { dim } = this.config, offload = run.keep ? this.#offload : null;
    const buffers = offload?.buffers(n, dim, run);
    let x = buffers?.[0] ?? arena.act(n, dim);
    this.#embedding.forward(x, ids, run);
    const forgetful = run.keep ? withKeep(run, false) : run, { length } = this.#learning;
    for (const layer of this.#below) layer.forward(x, forgetful);
    this.#learning.forEach((layer, i) => {
      offload?.enter(i, x);
      x = layer.forward(x, run, i + 1 < length ? buffers?.[(i + 1) % 2] : undefined);
    });
    run.save(this, x, arena.mark(), buffers);
    const hidden = arena.act(n, dim);
    this.#norm.forward(hidden, x, run);
    return hidden;
  }

  /** Loss of each row of `input`; with `grad`, the gradient of Σ weight·loss in hidden, for `backward`, else null. */
  loss(hidden: Tensor, /*[N,D]*/ input: LossInput, run: Run, grad: boolean): Tensor | null {
    return this.#head.loss(hidden, input, run, grad);
  }

  /** Adds to every parameter's gradient; the run must be the forward's. */
  backward(dHidden: Tensor, /*[N,D]*/ run: Run): void {
    const { arena, be } = run, d = arena.act(...dHidden.shape);
    be.fill(d, 0);
    this.#norm.backward(d, dHidden, run);
    // The blocks' gradient moves to where their output was, and all above it is given back before memory runs high.
    const [x, mark, buffers] = run.load<[Tensor, number, [Tensor, Tensor] | undefined]>(this);
    be.copy(x, d);
    arena.release(mark);
    const { trained } = this.#embedding;
    for (let i = this.#learning.length - 1; i >= 0; i--) {
      if (buffers) this.#offload!.need(i);
      this.#learning[i].backward(x, run, i > 0 || trained);
      if (buffers) this.#offload!.done(i, buffers[i % 2]);
    }
    if (trained) this.#embedding.backward(x, run);
  }

  /** Logits of some hidden rows, in new arena memory and before the final soft cap (`softcapLogits` on the host). */
  logits(hidden: Tensor, /*[M,D]*/ run: Run): Tensor /*[M,V]*/ {
    const out = run.arena.act(hidden.shape[0], this.config.vocab);
    this.#head.logits(out, hidden, run);
    return out;
  }

  /** Gives back what the decoder itself placed on the device; weights and parameters belong to the model. */
  close(): void {
    if (this.#ropeSlab) this.#init.be.free(this.#ropeSlab);
    this.#ropeSlab = 0;
  }

  /** One slab of frequencies, rows 256 bytes apart. Layers that rotate alike share a row: a backend may keep its sines for all. */
  #placeRopes(): void {
    const { config, be } = this.#init, names = Array.from({ length: config.layers }, (_, n) => this.#ropeName(n));
    const kinds = [...new Set(names)].filter((name) => name !== "");
    const sizes = kinds.map((name) => config.rope(names.indexOf(name), 1)!.freqs.length);
    const row = Math.ceil(Math.max(0, ...sizes) * 4 / 256) * 256;
    if (row > 0) this.#ropeSlab = be.alloc(row * kinds.length);
    const ropes = sizes.map((size, i): DeviceRope => {
      return { freqs: { handle: this.#ropeSlab, byteOffset: i * row, dtype: "f32", shape: [size] }, factor: 1 };
    });
    names.forEach((name) => this.#ropes.push(ropes[kinds.indexOf(name)] ?? null));
  }

  /**
   * The same for layers that rotate alike whatever the length, "" for one that does not: their frequencies depend on it by one
   * formula, or change once on the way.
   */
  #ropeName(layer: number): string {
    const { config } = this.#init;
    return [1, 2 * config.maxPos].map((length) => {
      const r = config.rope(layer, length);
      return r ? [r.factor, ...r.freqs].join() : "";
    }).filter((r) => r !== "").join(";");
  }

  #embed(): Embedding {
    const { adapters, params } = this.#init, { embedScale, pad, vocab } = this.config;
    const name = this.#init.moduleName("embed"), spec = adapters.get(name);
    const [a, b] = ["A", "B"].map((m) => params?.get(`${name}.lora_embedding_${m}`));
    return new Embedding({
      table: this.#slot("embed"),
      scale: embedScale,
      lora: spec && a && b ? { a, b, scale: spec.scale } : null,
      // torch counts a negative one from the end, and refuses what lies beyond.
      padding: pad === null || pad >= vocab || pad < -vocab ? null : pad < 0 ? vocab + pad : pad,
    });
  }

  #slot(ours: string, suffix: "weight" | "bias" = "weight"): Slot {
    const { weights, params } = this.#init, module = this.#init.moduleName(ours);
    const frozen = weights.get(suffix === "bias" ? `${ours}.bias` : ours) ?? null;
    const names = [`${module}.${suffix}`, `${module}.modules_to_save.${suffix}`, `${module}.base_layer.${suffix}`];
    const param = names.map((n) => params?.get(n)).find((p) => p) ?? null;
    if (!frozen && !param) {
      throw new ShapeError(`Cannot build the model: '${module}.${suffix}' is neither loaded nor trained`);
    }
    return { frozen, param };
  }

  #normAt(ours: string, size: number): Norm {
    const w = this.#slot(ours), { norm } = this.config;
    const shape = (w.frozen ?? w.param!.value).shape;
    if (shape[0] !== size) {
      throw new ShapeError(`Cannot build the model: '${ours}' is [${shape}] and must be [${size}]`);
    }
    return new Norm(w, norm.kind === "layer" ? this.#slot(ours, "bias") : null, norm);
  }

  #linear(ours: string, parts: readonly number[], bias: boolean): Linear {
    const name = this.#init.moduleName(ours);
    return new Linear(name, this.#slot(ours), bias ? this.#slot(ours, "bias") : null, parts, this.#lora(name));
  }

  #lora(module: string): Lora | null {
    const { adapters, params } = this.#init, spec = adapters.get(module);
    const a = params?.get(`${module}.lora_A.weight`), b = params?.get(`${module}.lora_B.weight`);
    if (!spec || !a || !b) return null;
    const magnitude = params?.get(`${module}.lora_magnitude_vector.weight`) ?? null;
    return { a, b, magnitude, ...spec, stream: [...adapters.keys()].indexOf(module) };
  }

  #headLinear(): Linear {
    const { vocab, tied } = this.config, name = this.#init.moduleName("head");
    if (!tied) return this.#linear("head", [vocab], false);
    const embed = this.#slot("embed"), { params } = this.#init;
    // A tied head follows the table while the whole model is trained; beside a trained copy of the table
    // (modules_to_save) it keeps the old one, as in peft.
    const own = params?.get(`${name}.modules_to_save.weight`) ?? null;
    const slot = { frozen: embed.frozen, param: own ?? (embed.frozen ? null : embed.param) };
    return new Linear(name, slot, null, [vocab], this.#lora(name));
  }

  #block(n: number): Block {
    const c = this.config, at = (name: string) => `layers.${n}.${name}`;
    const q = c.heads * c.headDim, kv = c.kvHeads * c.headDim;
    const inputs = c.fused
      ? [this.#linear(at("qkv"), [q, kv, kv], c.bias.qkv)]
      : ([["q", q], ["k", kv], ["v", kv]] as const).map(([p, w]) => this.#linear(at(p), [w], c.bias.qkv));
    const attention = new Attention({
      layer: n,
      inputs,
      o: this.#linear(at("o"), [c.dim], c.bias.o),
      qNorm: c.qkNorm ? this.#normAt(at("q_norm"), c.headDim) : null,
      kNorm: c.qkNorm ? this.#normAt(at("k_norm"), c.headDim) : null,
      heads: c.heads,
      kvHeads: c.kvHeads,
      headDim: c.headDim,
      rope: this.#ropes[n],
      opts: { scale: c.attnScale, window: c.window(n), softcap: c.attnSoftcap },
    });
    const mlpInputs = c.fused
      ? [this.#linear(at("gate_up"), [c.ffn, c.ffn], c.bias.mlp)]
      : [this.#linear(at("gate"), [c.ffn], c.bias.mlp), this.#linear(at("up"), [c.ffn], c.bias.mlp)];
    const mlp = new Mlp(mlpInputs, this.#linear(at("down"), [c.dim], c.bias.mlp), c.ffn, c.act);
    const post = (name: string) => c.postNorms ? this.#normAt(at(name), c.dim) : null;
    return new Block(
      new Residual(this.#normAt(at("attn_norm"), c.dim), attention, post("attn_post_norm")),
      new Residual(this.#normAt(at("mlp_norm"), c.dim), mlp, post("mlp_post_norm")),
      this.#init.checkpoint.levels[n],
    );
  }
}
