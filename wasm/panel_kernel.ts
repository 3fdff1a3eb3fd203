/**
 * Writes the WebAssembly text of a GEMM tile whose operands lie in garbage-collected structs. V8 without a trap handler
 * (Deno) compares and branches before each load from linear memory, and on Intel's chips up to Cascade Lake such a branch
 * often costs the decoded instructions of its line as well: a tile there reached 59 % of the multiply-add peak. A struct's
 * field has no bounds: the same tile reaches 94 %. The text is not optimised: Binaryen nests each column's sums into one
 * expression, V8 then loads everything first and spills.
 *
 * A block of op(b), KC × NB, is copied into structs of CHUNK k by 8 columns; of A, six rows of CHUNK k are spread, each element to
 * four lanes, and swept over all of them; the tiles of c wait in structs too until the pass over KC is done. Order and rounding of the
 * sums are micro_kernel.ts's.
 * @module
 */

/** k of a struct; assembly/matmul_held.ts has it from the module `./micro`. */
export const CHUNK = 32;
/** Rows of the tile. */
export const ROWS = 6;
/** Vectors of four columns of the tile. */
const VECTORS = 2;
/** Structs of op(b), 640 KiB in all, and tiles of c; ../matmul.ts cuts by them. */
export const BLOCKS = 640, TILES = 64;

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const fields = (n: number): string => "(field (mut v128)) ".repeat(n);
const each = <T>(xs: readonly T[], f: (x: T) => string): string => xs.map(f).join("\n");
const TILE = range(ROWS).flatMap((i) => range(VECTORS).map((j) => ({ i, j, at: i * VECTORS + j })));

/** Types and the objects of a thread: each has an instance of its own. */
const OBJECTS = `
  (rec
    (type $A (struct ${fields(ROWS * CHUNK)})) (type $B (struct ${fields(VECTORS * CHUNK)})) (type $C (struct ${
  fields(TILE.length)
}))
    (type $Bs (array (mut (ref $B)))) (type $Cs (array (mut (ref $C)))))
  (global $a (ref $A) (struct.new_default $A))
  (global $bs (ref $Bs) (array.new $Bs (struct.new_default $B) (i32.const ${BLOCKS})))
  (global $cs (ref $Cs) (array.new $Cs (struct.new_default $C) (i32.const ${TILES})))
  (func $makeBlocks (local $i i32)
    (loop $next
      (array.set $Bs (global.get $bs) (local.get $i) (struct.new_default $B))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const ${BLOCKS})))))
  (func $start (local $i i32)
    (call $makeBlocks)
    (loop $next
      (array.set $Cs (global.get $cs) (local.get $i) (struct.new_default $C))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const ${TILES})))))
  (start $start)`;

/** fillPlain(b, bytes between rows, panels, first struct): CHUNK rows of b, in panels of eight columns. */
const FILL_PLAIN = `
  (func (export "fillPlain") (param $from i32) (param $ld i32) (param $panels i32) (param $at i32)
    (local $f i32) (local $to (ref $B))
    (loop $panel
      (local.set $f (local.get $from))
      (local.set $to (array.get $Bs (global.get $bs) (local.get $at)))
      ${
  each(range(CHUNK), (k) =>
    `(struct.set $B ${2 * k} (local.get $to) (v128.load (local.get $f)))
      (struct.set $B ${2 * k + 1} (local.get $to) (v128.load offset=16 (local.get $f)))
      (local.set $f (i32.add (local.get $f) (local.get $ld)))`)
}
      (local.set $from (i32.add (local.get $from) (i32.const 32)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $panel (local.tee $panels (i32.sub (local.get $panels) (i32.const 1))))))`;

/** Which elements of two vectors a shuffle takes, in words of 4 bytes. */
const shuffle = (words: readonly number[]): string =>
  `i8x16.shuffle ${words.flatMap((w) => range(4).map((b) => 4 * w + b)).join(" ")}`;
/** The transpose of $r0..$r3: rows of the result, by way of $t0..$t3. */
const LOW = shuffle([0, 4, 1, 5]),
  HIGH = shuffle([2, 6, 3, 7]),
  FIRST = shuffle([0, 1, 4, 5]),
  LAST = shuffle([2, 3, 6, 7]);

/**
 * fillTransposed(b, bytes between rows, chunks, first struct, structs between chunks): eight rows of b, which are columns of
 * op(b), as one panel.
 */
const FILL_TRANSPOSED = `
  (func (export "fillTransposed") (param $from i32) (param $ld i32) (param $chunks i32) (param $at i32) (param $step i32)
    (local $f i32) (local $g i32) (local $to (ref $B))
    ${["r", "t"].map((x) => range(4).map((i) => `(local $${x}${i} v128)`).join(" ")).join(" ")}
    (loop $chunk
      (local.set $to (array.get $Bs (global.get $bs) (local.get $at)))
      ${
  each(range(VECTORS), (j) =>
    `(local.set $f (i32.add (local.get $from) (i32.mul (local.get $ld) (i32.const ${4 * j}))))
      ${
      each(range(CHUNK / 4), (q) =>
        `(local.set $g (local.get $f))
      ${
          each(range(4), (i) =>
            `(local.set $r${i} (v128.load (local.get $g)))
      ${
              i < 3
                ? "(local.set $g (i32.add (local.get $g) (local.get $ld)))"
                : ""
            }`)
        }
      (local.set $f (i32.add (local.get $f) (i32.const 16)))
      (local.set $t0 (${LOW} (local.get $r0) (local.get $r1))) (local.set $t1 (${LOW} (local.get $r2) (local.get $r3)))
      (local.set $t2 (${HIGH} (local.get $r0) (local.get $r1))) (local.set $t3 (${HIGH} (local.get $r2) (local.get $r3)))
      ${
          each(range(4), (t) => {
            const pair = t < 2 ? "(local.get $t0) (local.get $t1)" : "(local.get $t2) (local.get $t3)";
            return `(struct.set $B ${(4 * q + t) * VECTORS + j} (local.get $to) (${t % 2 ? LAST : FIRST} ${pair}))`;
          })
        }`)
    }`)
}
      (local.set $from (i32.add (local.get $from) (i32.const ${4 * CHUNK})))
      (local.set $at (i32.add (local.get $at) (local.get $step)))
      (br_if $chunk (local.tee $chunks (i32.sub (local.get $chunks) (i32.const 1))))))`;

/** Element `lane` of $v in all four lanes. */
const spread = (lane: number): string => `(${shuffle([lane, lane, lane, lane])} (local.get $v) (local.get $v))`;

/** Six rows of CHUNK elements, spread; a row after `last` is `last` again. */
const LOAD = `
  (func $load (param $from i32) (param $ld i32) (param $last i32) (local $at i32) (local $v v128) (local $to (ref $A))
    (local.set $to (global.get $a))
    ${
  each(range(ROWS), (i) =>
    `(local.set $at (i32.add (local.get $from) (i32.mul (local.get $ld)
      (select (i32.const ${i}) (local.get $last) (i32.lt_u (i32.const ${i}) (local.get $last))))))
    ${
      each(range(CHUNK / 4), (g) =>
        `(local.set $v (v128.load (local.get $at)))
    (local.set $at (i32.add (local.get $at) (i32.const 16)))
    ${each(range(4), (t) => `(struct.set $A ${(4 * g + t) * ROWS + i} (local.get $to) ${spread(t)})`)}`)
    }`)
})`;

/** One k of the chunk for a tile. */
const product = (k: number): string =>
  each(range(VECTORS), (j) => `(local.set $b${j} (struct.get $B ${k * VECTORS + j} (local.get $b)))`) +
  each(range(ROWS), (i) =>
    `(local.set $s (struct.get $A ${k * ROWS + i} (local.get $a)))
    ${
      each(range(VECTORS), (j) => {
        const c = `$c${i * VECTORS + j}`;
        return `(local.set ${c} (f32x4.relaxed_madd (local.get $s) (local.get $b${j}) (local.get ${c})))`;
      })
    }`);

/**
 * Tiles $p to $end += the six rows · one chunk of op(b), whose structs lie from $at on; the first chunk starts from zero, and of a
 * short one only the first half is not zero.
 */
const SWEEP = `
  (func $sweep (param $first i32) (param $at i32) (param $p i32) (param $end i32) (param $short i32)
    (local $s v128) ${range(VECTORS).map((j) => `(local $b${j} v128)`).join(" ")}
    ${TILE.map(({ at }) => `(local $c${at} v128)`).join(" ")}
    (local $a (ref $A)) (local $b (ref $B)) (local $c (ref $C)) (local $bs (ref $Bs)) (local $cs (ref $Cs))
    (local.set $a (global.get $a))
    (local.set $bs (global.get $bs))
    (local.set $cs (global.get $cs))
    (loop $panel
      (local.set $b (array.get $Bs (local.get $bs) (i32.add (local.get $at) (local.get $p))))
      (local.set $c (array.get $Cs (local.get $cs) (local.get $p)))
      (if (local.get $first)
        (then ${each(TILE, ({ at }) => `(local.set $c${at} (v128.const i32x4 0 0 0 0))`)})
        (else ${each(TILE, ({ at }) => `(local.set $c${at} (struct.get $C ${at} (local.get $c)))`)}))
      (block $done
        ${each(range(CHUNK / 2), product)}
        (br_if $done (local.get $short))
        ${each(range(CHUNK / 2), (k) => product(CHUNK / 2 + k))})
      ${each(TILE, ({ at }) => `(struct.set $C ${at} (local.get $c) (local.get $c${at}))`)}
      (br_if $panel (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 1))) (local.get $end)))))`;

/**
 * multiply(a, bytes between rows, last row, first struct, structs between chunks, chunks, first panel, end, from zero, whether
 * the last chunk is short): tiles = or += six rows of A · chunks of op(b).
 */
const MULTIPLY = `
  (func (export "multiply") (param $a i32) (param $ld i32) (param $last i32) (param $at i32) (param $step i32)
    (param $chunks i32) (param $p i32) (param $end i32) (param $first i32) (param $short i32)
    (loop $chunk
      (call $load (local.get $a) (local.get $ld) (local.get $last))
      (local.set $chunks (i32.sub (local.get $chunks) (i32.const 1)))
      (call $sweep (local.get $first) (local.get $at) (local.get $p) (local.get $end)
        (i32.and (local.get $short) (i32.eqz (local.get $chunks))))
      (local.set $first (i32.const 0))
      (local.set $a (i32.add (local.get $a) (i32.const ${4 * CHUNK})))
      (local.set $at (i32.add (local.get $at) (local.get $step)))
      (br_if $chunk (local.get $chunks))))`;

/** Row i of a tile to c; out of $rows after the last one. */
function takeRow(i: number, add: boolean): string {
  const stores = TILE.filter((x) => x.i === i).map(({ j, at }) => {
    const tile = `(struct.get $C ${at} (local.get $t))`, o = `offset=${16 * j}`;
    const sum = add
      ? `(f32x4.relaxed_madd (local.get $f) ${tile} (v128.load ${o} (local.get $c)))`
      : `(f32x4.mul (local.get $f) ${tile})`;
    return `(v128.store ${o} (local.get $c) ${sum})`;
  });
  if (i === ROWS - 1) return stores.join("\n");
  const out = `(br_if $rows (i32.eq (local.get $last) (i32.const ${i})))`;
  return [...stores, out, "(local.set $c (i32.add (local.get $c) (local.get $ld)))"].join("\n");
}

/** take(first panel, end, c, bytes between rows, last row, alpha, add): c = alpha · tile (+ c), for tiles side by side. */
const TAKE = `
  (func (export "take") (param $p i32) (param $end i32) (param $to i32) (param $ld i32) (param $last i32) (param $alpha f32)
    (param $add i32) (local $c i32) (local $f v128) (local $t (ref $C))
    (local.set $f (f32x4.splat (local.get $alpha)))
    (loop $panel
      (local.set $c (local.get $to))
      (local.set $t (array.get $Cs (global.get $cs) (local.get $p)))
      (block $rows
        (if (local.get $add)
          (then ${each(range(ROWS), (i) => takeRow(i, true))})
          (else ${each(range(ROWS), (i) => takeRow(i, false))})))
      (local.set $to (i32.add (local.get $to) (i32.const ${16 * VECTORS})))
      (br_if $panel (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 1))) (local.get $end)))))`;

/** The module, in WebAssembly's text format. */
export const panelKernel: string = `(module
  (import "env" "memory" (memory 1 65536 shared))${OBJECTS}${FILL_PLAIN}${FILL_TRANSPOSED}${LOAD}${SWEEP}${MULTIPLY}${TAKE})`;
