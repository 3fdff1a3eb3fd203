/** The gated feed-forward: down(act(gate(x))·up(x)). @module */
import type { Act } from "../core/backend.ts";
import type { Tensor } from "../core/tensor.ts";
import type { Kept, Linear } from "./linear.ts";
import {
  backwardFrom,
  forwardInto,
  forwardLast,
  type Held,
  type Level,
  type Mixer,
  type Placing,
  reserveAll,
} from "./mixer.ts";
import type { Run } from "./module.ts";

/** Memory between the passes; act(gate)·up is made again in the backward. */
export interface MlpPlace {
  readonly gate: Tensor /* [N,F] */;
  readonly up: Tensor /* [N,F] */;
  readonly inputs: readonly Kept[];
  readonly down: Kept;
  /** What down keeps is there already. */
  readonly ready: boolean;
}

/** gate and up are two linears, or one fused linear of two parts. */
export class Mlp implements Mixer<MlpPlace> {
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

  get trained(): boolean {
    return [...this.inputs, this.down].some((l) => l.trained);
  }

  hold(n: number, _: Level, last: boolean, run: Run): Held {
    return { result: null, last: last && this.down.keepsLittle ? this.down.reserve(n, run) : null };
  }

  place(n: number, run: Run, o: Placing = {}): MlpPlace {
    const { arena } = run, last = o.held?.last ?? null;
    return {
      gate: arena.act(n, this.ffn),
      up: arena.act(n, this.ffn),
      inputs: reserveAll(this.inputs, n, run),
      down: last ?? this.down.reserve(n, run),
      ready: last !== null && (o.ready ?? false),
    };
  }

  forward(out: Tensor | null, x: Tensor, /*[N,D]*/ run: Run, place: MlpPlace = this.place(x.shape[0], run)): void {
    const { arena } = run, { gate, up, ready } = place;
    forwardInto(this.inputs, [gate, up], x, run, place.inputs);
    const mark = arena.mark(), h = out || !ready ? arena.act(...gate.shape) : gate;
    if (out || !ready) run.be.glu(h, gate, up, this.act);
    forwardLast(this.down, out, h, run, place.down, ready);
    if (h !== gate) run.be.forget?.(h);
    arena.release(mark);
    run.save(this, gate, up);
  }

  backward(dy: Tensor, /*[N,D]*/ input: () => Tensor, run: Run, wanted: boolean): Tensor | null {
    const { arena } = run,
      dx = wanted ? arena.act(...dy.shape) : null,
      mark = arena.mark(),
      [gate, up] = run.load(this);
    const dh = arena.act(...gate.shape);
    const p = this.down.backwardInput(dh, [dy], run, 0);
    run.be.gluBwd(gate, up, dh, dh, gate, up, this.act); // gate and up now hold their gradients, dh the value of h
    this.down.backwardParams(p, [dy], dh, run);
    run.be.forget?.(dh);
    // x and dx lie beside dh, not in its place: a backend may give all that is read of gluBwd's results in one pass.
    const x = input();
    backwardFrom(this.inputs, dx, [gate, up], x, run);
    for (const t of [x, gate, up]) run.be.forget?.(t);
    arena.release(mark);
    return dx;
  }
}
