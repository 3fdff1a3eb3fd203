/**
 * The 8-bit dynamic code (Dettmers 2016, "8-Bit Approximations for Parallelism in Deep Learning"): the exponent's bits are
 * spent one by one, and what is left is a linear fraction; values in [-1, 1] or [0, 1].
 * @module
 */

const f = Math.fround;

/** Evenly spaced f32 from 0.1 to 1, both ends exact, each half counted from its own end (torch.linspace). */
function spaced(n: number): number[] {
  const step = f((1 - f(0.1)) / (n - 1));
  return Array.from({ length: n }, (_, i) => i < n / 2 ? f(f(0.1) + step * i) : f(1 - step * (n - 1 - i)));
}

/** The 256 values, ascending. bitsandbytes' create_dynamic_map with 7 exponent bits gives the same. */
export function dynamicCode(signed: boolean): Float32Array<ArrayBuffer> {
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const ends = spaced(2 ** (signed ? i : i + 1) + 1), power = f(10 ** (i - 6));
    for (let k = 0; k + 1 < ends.length; k++) {
      const x = f(power * f(f(ends[k] + ends[k + 1]) / 2));
      values.push(x);
      if (signed) values.push(-x);
    }
  }
  return Float32Array.from(values).sort();
}
