/** The gated feed-forward: down(act(gate(x))·up(x)). @module */
import type { Act } from "../core/backend.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Linear } from "./linear.ts";
import type { Mixer } from "./block.ts";
import type { Run } from "./module.ts";

/** gate and up are two linears, or one fused linear of two parts. */
export class Mlp implements Mixer {
  readonly inputs: readonly Linear[];
  readonly down: Linear;
  readonly ffn: number;
  readonly act: Act;

  constructor(inputs: readonly Linear[], down: Linear, ffn: number, act: Act) {
    this.inputs = inputs;
    this.down = down;
    this.ffn = ffn;
    this.act = act;
  }

  forward(out: Tensor, /*[N,D]*/ x: Tensor, /*[N,D]*/ run: Run): void {
    this.#run(out, x, run);
  }

  refill(x: Tensor, /*[N,D]*/ run: Run): void {
    this.#run(null, x, run);
  }

  /** Keeps x, gate and up; act(gate)·up is made again in the backward. */
  #run(out: Tensor | null, x: Tensor, run: Run): void {
    const { arena } = run, [n] = x.shape;
    const gate = arena.act(n, this.ffn), up = arena.act(n, this.ffn);
    forwardInto(this.inputs, [gate, up], x, run);
    const kept = this.down.reserve(n, run);
    const mark = arena.mark();
    const h = arena.act(n, this.ffn);
    run.be.glu(h, gate, up, this.act);
    if (out) this.down.forward([out], h, run, kept);
    else this.down.refill(h, run, kept);
    arena.release(mark);
    run.save(this, x, gate, up);
  }

  /** dx = . */
  backward(dx: Tensor, dy: Tensor, run: Run): void {
    const { arena } = run, mark = arena.mark();
    const [x, gate, up] = run.load(this);
    const h = arena.act(...gate.shape), dh = arena.act(...gate.shape);
    const p = this.down.backwardInput(dh, [dy], run, 0);
    run.be.gluBwd(gate, up, h, dh, gate, up, this.act); // gate and up now hold their gradients, h its value again
    this.down.backwardParams(p, [dy], h, run);
    backwardFrom(this.inputs, dx, [gate, up], x, run);
    arena.release(mark);
  }
}

/** Runs linears that share x, one after the other, over their parts of `outs`. */
export function forwardInto(linears: readonly Linear[], outs: readonly Tensor[], x: Tensor, run: Run): void {
  let at = 0;
  for (const l of linears) l.forward(outs.slice(at, at += l.parts.length), x, run);
}

/** The mirror: dx = the sum over all, parameters' gradients added. */
export function backwardFrom(
  linears: readonly Linear[],
  dx: Tensor,
  dys: readonly Tensor[],
  x: Tensor,
  run: Run,
): void {
  let end = dys.length, beta: 0 | 1 = 0;
  for (const l of linears.toReversed()) {
    const mark = run.arena.mark();
    const part = dys.slice(end - l.parts.length, end);
    l.backwardParams(l.backwardInput(dx, part, run, beta), part, x, run);
    run.arena.release(mark);
    end -= l.parts.length;
    beta = 1;
  }
}
