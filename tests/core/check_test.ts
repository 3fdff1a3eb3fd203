/** The shape checks: right calls pass; each tensor of each operation, made wrong, is noticed. */
import { describe, expect, test } from "vitest";
import type { Ops } from "../../src/core/backend.ts";
import { check } from "../../src/core/check.ts";
import type { DType } from "../../src/core/dtype.ts";
import { ShapeError } from "../../src/core/errors.ts";
import type { Tensor } from "../../src/core/tensor.ts";

const t = (dtype: DType, ...shape: number[]): Tensor => ({ handle: 1, byteOffset: 0, dtype, shape });
const x = (...shape: number[]): Tensor => t("bf16", ...shape);
const f = (...shape: number[]): Tensor => t("f32", ...shape);
const i = (...shape: number[]): Tensor => t("i32", ...shape);

const ATTN = { scale: 1, window: 0, softcap: 0 }, RMS = { kind: "rms", eps: 1e-5, plusOne: false } as const;
const [N, D, H, K, d, F, V, R, S, L] = [6, 64, 4, 2, 8, 12, 32, 3, 2, 9];
const seqs = { cu: i(S + 1), maxLen: N };

/** A right call of each operation. */
const RIGHT: { [P in keyof Ops]: Parameters<Ops[P]> } = {
  embed: [x(N, D), t("q8_0", V, D), i(N), 1],
  embedBwd: [f(V, D), x(N, D), i(N), 1],
  norm: [x(N, D), f(N, 2), x(N, D), x(D), x(D), RMS],
  normBwd: [x(N, D), f(D), f(D), x(N, D), x(N, D), x(D), f(N, 2), RMS],
  matmul: [x(N, V), x(N, D), t("q4_0", V, D), x(V), { transB: true }],
  rope: [x(N, H, d), i(N), f(d / 2), { sign: 1, factor: 1 }],
  attention: [x(N, H, d), f(H, N), x(N, H, d), x(N, K, d), x(N, K, d), seqs, ATTN],
  attentionBwd: [
    x(N, H, d),
    x(N, K, d),
    x(N, K, d),
    x(N, H, d),
    x(N, H, d),
    x(N, K, d),
    x(N, K, d),
    x(N, H, d),
    f(H, N),
    seqs,
    ATTN,
  ],
  cacheWrite: [x(S, L, K, d), x(S, L, K, d), x(N, K, d), x(N, K, d), i(N), i(N)],
  attentionCached: [x(N, H, d), x(N, H, d), x(S, L, K, d), x(S, L, K, d), i(N), i(N), ATTN],
  glu: [x(N, F), x(N, F), x(N, F), "silu"],
  gluBwd: [x(N, F), x(N, F), x(N, F), x(N, F), x(N, F), x(N, F), "silu"],
  add: [x(N, D), x(N, D), x(N, D)],
  copy: [x(N, D), t("q8_0", N, D)],
  scale: [x(N, D), x(N, D), 2],
  crossEntropy: [f(N), x(N, V), i(N), f(N), { softcap: 0, smoothing: 0, zLoss: 0 }],
  sumSquares: [f(1), f(N, D)],
  clipFactor: [f(8), f(1), 1],
  adamw: [f(R, D), f(R, D), f(R, D), f(R, D), f(8)],
  sgd: [f(R, D), f(R, D), f(R, D), f(8)],
  lion: [f(R, D), f(R, D), f(R, D), f(8)],
  adamw8: [f(512), f(512), t("u8", 512), t("u8", 512), f(2, 2), f(2, 256), f(8)],
  adafactor: [f(R, D), f(R, D), f(R), f(D), f(8)],
  noise: [x(N, D), x(N, D), f(N), i(2), 0],
  colSum: [f(D), x(N, D)],
  colDot: [f(D), x(N, D), x(N, D)],
  scaleCols: [x(N, D), x(N, D), f(D)],
  rowNorm: [f(V), t("q8_0", V, D), f(R, D), f(V, R), 1],
  divide: [f(D), f(D), f(D)],
  dropout: [x(N, D), x(N, D), i(2), 0, 0.1],
  quantizeFp8: [t("fp8_128", 256, 128), x(128, 128), 128],
  hostSlot: [3, 1024],
  stash: [3, x(N, D)],
  fetch: [x(N, D), 3],
  slotWait: [3],
};

/** Tensors whose size another argument does not fix: any number of elements is right. */
const FREE = new Set(["sumSquares 1", "rope 0", "crossEntropy 1", "stash 1", "fetch 0"]);
/** Tensors that are bytes; made f32 instead. */
const BYTES = new Set(["adamw8 2", "adamw8 3"]);
const isTensor = (a: unknown): a is Tensor => typeof a === "object" && a !== null && "dtype" in a;

describe.each(Object.keys(RIGHT) as (keyof Ops)[])("check.%s", (op) => {
  const args = RIGHT[op] as unknown[], run = check[op] as (...a: unknown[]) => void;
  const swap = (n: number, a: unknown): unknown[] => args.map((old, j) => (j === n ? a : old));

  test("takes a right call", () => run(...args));

  test("refuses each tensor with an element too many, or of a type that it cannot be", () => {
    args.forEach((a, n) => {
      if (!isTensor(a)) return;
      const longer = { ...a, shape: [...a.shape.slice(0, -1), a.shape[a.shape.length - 1] + 1] };
      if (!FREE.has(`${op} ${n}`)) {
        expect(() => run(...swap(n, longer)), `argument ${n} as [${longer.shape}]`).toThrow(ShapeError);
      }
      if (op !== "copy") {
        const dtype = BYTES.has(`${op} ${n}`) ? "f32" : "u8";
        expect(() => run(...swap(n, { ...a, dtype })), `argument ${n} as ${dtype}`).toThrow(ShapeError);
      }
    });
  });
});

test("a cu that is no i32, or names no sequence, is refused", () => {
  const call = (cu: Tensor) => () =>
    check.attention(x(N, H, d), f(H, N), x(N, H, d), x(N, K, d), x(N, K, d), { cu, maxLen: N }, ATTN);
  expect(call(f(3))).toThrow("Cannot run attention: cu is f32 and must be i32");
  expect(call(i(1))).toThrow("Cannot run attention: cu [1] names no sequence");
});

test("the sentences name both sides", () => {
  expect(() => check.matmul(x(64, 128), x(64, 128), x(256, 128), null, {})).toThrow(
    "Cannot multiply [64,128] by [256,128]: inner sizes are 128 and 256",
  );
  expect(() => check.copy(t("q8_0", 1, 32), x(1, 32))).toThrow("Cannot copy into q8_0: only dense types are written");
  expect(() => check.gluBwd(x(2), null, x(2), x(2), x(2), x(2), "silu")).toThrow("up and dUp go together");
  expect(() => check.matmul(x(2, 3), x(2, 48), t("q8_0", 3, 48), null, { transB: true })).toThrow(
    "rows of 48 are no multiple of q8_0's block",
  );
  expect(() => check.dropout(x(2), x(2), i(2), 0, 1)).toThrow(RangeError);
  expect(() => check.attention(x(N, 3, d), f(3, N), x(N, 3, d), x(N, 2, d), x(N, 2, d), seqs, ATTN)).toThrow(
    "do not share head sizes",
  );
});
