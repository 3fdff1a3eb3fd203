/**
 * Writes the WebAssembly text of a GEMM tile whose operands lie in garbage-collected structs. V8 without a trap handler
 * (Deno) compares and branches before each load from linear memory, and on Intel's chips up to Cascade Lake such a branch
 * often costs the decoded instructions of its line as well: a tile there reached 59 % of the multiply-add peak. A struct's
 * field has no bounds: the same tile reaches 94 %. The text is not optimised: Binaryen nests each column's sums into one
 * expression, V8 then loads everything first and spills.
 *
 * A block of op(b) is copied into structs of CHUNK k by 8 columns; six rows of CHUNK k of A are spread, each element to
 * four lanes, and swept over all of them; the tiles of c wait in structs too until the pass over k is done. Order and
 * rounding of the sums are micro_kernel.ts's. Who calls: assembly/held.ts.
 * @module
 */

/** k of a struct; the kernels have it from the module `./micro`. */
export const CHUNK = 32;
/** Rows of the tile. */
export const ROWS = 6;
/** Vectors of four columns of the tile. */
const VECTORS = 2;
/** Structs of op(b), 720 KiB in all, and tiles of c; ../matmul.ts cuts by them. */
export const BLOCKS = 720, TILES = 64;

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const lines = <T>(xs: readonly T[], f: (x: T) => string): string => xs.map(f).join("\n      ");
const get = (local: string): string => `(local.get $${local})`;
const set = (local: string, value: string): string => `(local.set $${local} ${value})`;
const vectors = (...names: string[]): string => names.map((n) => `(local $${n} v128)`).join(" ");
/** `local` moved on by some bytes. */
const moved = (local: string, by: string): string => set(local, `(i32.add ${get(local)} ${by})`);
const number = (n: number): string => `(i32.const ${n})`;
/** Which elements of two vectors a shuffle takes, counted in words of 4 bytes. */
const shuffle = (words: readonly number[], a: string, b: string): string =>
  `(i8x16.shuffle ${words.flatMap((w) => range(4).map((byte) => 4 * w + byte)).join(" ")} ${get(a)} ${get(b)})`;

/** The vectors of c's tile: row, place in the row, field. */
const TILE = range(ROWS).flatMap((i) => range(VECTORS).map((j) => ({ i, j, at: i * VECTORS + j })));
const struct = (name: string, n: number): string => `(type $${name} (struct ${"(field (mut v128)) ".repeat(n)}))`;
/** Fills an array with structs of their own. */
const populate = (array: string, type: string, count: number): string => `
    (local.set $i (i32.const 0))
    (loop $next
      (array.set $${type}s (global.get $${array}) (local.get $i) (struct.new_default $${type}))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const ${count}))))`;

/** Types and the objects of a thread: each has an instance of its own. */
const OBJECTS = `
  (rec
    ${struct("A", ROWS * CHUNK)} ${struct("B", VECTORS * CHUNK)} ${struct("C", TILE.length)}
    (type $Bs (array (mut (ref $B)))) (type $Cs (array (mut (ref $C)))))
  (global $a (ref $A) (struct.new_default $A))
  (global $bs (ref $Bs) (array.new $Bs (struct.new_default $B) (i32.const ${BLOCKS})))
  (global $cs (ref $Cs) (array.new $Cs (struct.new_default $C) (i32.const ${TILES})))
  (func $start (local $i i32) ${populate("bs", "B", BLOCKS)} ${populate("cs", "C", TILES)})
  (start $start)`;

/** Field k, j of a struct of op(b) = a value. */
const setB = (k: number, j: number, value: string): string =>
  `(struct.set $B ${k * VECTORS + j} ${get("to")} ${value})`;

const plainRow = (k: number): string =>
  lines(range(VECTORS), (j) => setB(k, j, `(v128.load offset=${16 * j} ${get("f")})`)) + moved("f", get("ld"));

/** fillPlain(b, bytes between rows, panels, first struct): CHUNK rows of b, in panels of eight columns. */
const FILL_PLAIN = `
  (func (export "fillPlain") (param $from i32) (param $ld i32) (param $panels i32) (param $at i32)
    (local $f i32) (local $to (ref $B))
    (loop $panel
      (local.set $f (local.get $from))
      (local.set $to (array.get $Bs (global.get $bs) (local.get $at)))
      ${lines(range(CHUNK), plainRow)}
      (local.set $from (i32.add (local.get $from) (i32.const ${16 * VECTORS})))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $panel (local.tee $panels (i32.sub (local.get $panels) (i32.const 1))))))`;

/** Four elements of four rows of b from $f on, as vector j of k = 4q to 4q + 3. */
function transposeFour(q: number, j: number): string {
  const load = (i: number): string => set(`r${i}`, "(v128.load (local.get $g))") + (i < 3 ? moved("g", get("ld")) : "");
  const [low, high, first, last] = [[0, 4, 1, 5], [2, 6, 3, 7], [0, 1, 4, 5], [2, 3, 6, 7]];
  return [
    set("g", get("f")) + range(4).map(load).join(" "),
    moved("f", number(16)),
    set("t0", shuffle(low, "r0", "r1")) + set("t1", shuffle(low, "r2", "r3")),
    set("t2", shuffle(high, "r0", "r1")) + set("t3", shuffle(high, "r2", "r3")),
    setB(4 * q, j, shuffle(first, "t0", "t1")) + setB(4 * q + 1, j, shuffle(last, "t0", "t1")),
    setB(4 * q + 2, j, shuffle(first, "t2", "t3")) + setB(4 * q + 3, j, shuffle(last, "t2", "t3")),
  ].join("\n      ");
}

const fourRows = (j: number): string =>
  set("f", `(i32.add ${get("from")} (i32.mul ${get("ld")} ${number(4 * j)}))`) +
  lines(range(CHUNK / 4), (q) => transposeFour(q, j));

/**
 * fillTransposed(b, bytes between rows, chunks, first struct, structs between chunks): eight rows of b, which are columns of
 * op(b), as one panel.
 */
const FILL_TRANSPOSED = `
  (func (export "fillTransposed") (param $from i32) (param $ld i32) (param $chunks i32) (param $at i32) (param $step i32)
    (local $f i32) (local $g i32) (local $to (ref $B)) ${vectors("r0", "r1", "r2", "r3", "t0", "t1", "t2", "t3")}
    (loop $chunk
      (local.set $to (array.get $Bs (global.get $bs) (local.get $at)))
      ${lines(range(VECTORS), fourRows)}
      (local.set $from (i32.add (local.get $from) (i32.const ${4 * CHUNK})))
      (local.set $at (i32.add (local.get $at) (local.get $step)))
      (br_if $chunk (local.tee $chunks (i32.sub (local.get $chunks) (i32.const 1))))))`;

/** CHUNK elements of row i, spread; a row after $last is $last again. */
function spreadRow(i: number): string {
  const row = `(select ${number(i)} ${get("last")} (i32.lt_u ${number(i)} ${get("last")}))`;
  const element = (k: number): string =>
    `(struct.set $A ${k * ROWS + i} ${get("to")} ${shuffle(new Array(4).fill(k % 4), "v", "v")})`;
  return set("at", `(i32.add ${get("from")} (i32.mul ${get("ld")} ${row}))`) + lines(range(CHUNK / 4), (q) => {
    const load = set("v", "(v128.load (local.get $at))") + moved("at", number(16));
    return load + range(4).map((t) => element(4 * q + t)).join(" ");
  });
}

const LOAD = `
  (func $load (param $from i32) (param $ld i32) (param $last i32) (local $at i32) (local $v v128) (local $to (ref $A))
    (local.set $to (global.get $a))
    ${lines(range(ROWS), spreadRow)})`;

/** A tile += column k of the six rows · row k of a panel. */
function product(k: number): string {
  const row = (i: number): string =>
    set("s", `(struct.get $A ${k * ROWS + i} ${get("a")})`) + range(VECTORS).map((j) => {
      const c = `c${i * VECTORS + j}`;
      return set(c, `(f32x4.relaxed_madd ${get("s")} ${get(`b${j}`)} ${get(c)})`);
    }).join(" ");
  const loads = range(VECTORS).map((j) => set(`b${j}`, `(struct.get $B ${k * VECTORS + j} ${get("b")})`));
  return [...loads, ...range(ROWS).map(row)].join("\n      ");
}

/**
 * Tiles $p to $end += the six rows · one chunk of op(b), whose structs lie from $at on; the first chunk starts from zero,
 * and of a short one only the first half is not zero.
 */
const SWEEP = `
  (func $sweep (param $first i32) (param $at i32) (param $p i32) (param $end i32) (param $short i32)
    ${vectors("s", ...range(VECTORS).map((j) => `b${j}`), ...TILE.map(({ at }) => `c${at}`))}
    (local $a (ref $A)) (local $b (ref $B)) (local $c (ref $C)) (local $bs (ref $Bs)) (local $cs (ref $Cs))
    (local.set $a (global.get $a))
    (local.set $bs (global.get $bs))
    (local.set $cs (global.get $cs))
    (loop $panel
      (local.set $b (array.get $Bs (local.get $bs) (i32.add (local.get $at) (local.get $p))))
      (local.set $c (array.get $Cs (local.get $cs) (local.get $p)))
      (if (local.get $first)
        (then ${lines(TILE, ({ at }) => set(`c${at}`, "(v128.const i32x4 0 0 0 0)"))})
        (else ${lines(TILE, ({ at }) => set(`c${at}`, `(struct.get $C ${at} ${get("c")})`))}))
      (block $done
        ${lines(range(CHUNK / 2), product)}
        (br_if $done (local.get $short))
        ${lines(range(CHUNK / 2), (k) => product(CHUNK / 2 + k))})
      ${lines(TILE, ({ at }) => `(struct.set $C ${at} ${get("c")} ${get(`c${at}`)})`)}
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
    const tile = `(struct.get $C ${at} ${get("t")})`, o = `offset=${16 * j}`, c = `(v128.load ${o} ${get("c")})`;
    const value = add ? `(f32x4.relaxed_madd ${get("f")} ${tile} ${c})` : `(f32x4.mul ${get("f")} ${tile})`;
    return `(v128.store ${o} ${get("c")} ${value})`;
  });
  const out = `(br_if $rows (i32.eq ${get("last")} ${number(i)}))`;
  return [...stores, ...i < ROWS - 1 ? [out, moved("c", get("ld"))] : []].join("\n");
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
          (then ${lines(range(ROWS), (i) => takeRow(i, true))})
          (else ${lines(range(ROWS), (i) => takeRow(i, false))})))
      (local.set $to (i32.add (local.get $to) (i32.const ${16 * VECTORS})))
      (br_if $panel (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 1))) (local.get $end)))))`;

/** The module, in WebAssembly's text format. */
export const panelKernel: string = [
  '(module (import "env" "memory" (memory 1 65536 shared))',
  ...[OBJECTS, FILL_PLAIN, FILL_TRANSPOSED, LOAD, SWEEP, MULTIPLY, TAKE],
  ")",
].join("");
