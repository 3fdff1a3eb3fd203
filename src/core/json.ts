/**
 * JSON whose numbers stay what the text says. JavaScript has one kind of number: whole numbers beyond 2^53 lose their last
 * digits, and 1.0 becomes 1, which a model would then learn. Such a number is kept with its text, as Python's json module
 * would write it after reading, so that chat templates render it as transformers does.
 * @module
 */

/** A number that JavaScript's own would write otherwise. */
export class ExactNumber {
  /** As Python writes it. */
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  toString(): string {
    return this.text;
  }

  valueOf(): number {
    return Number(this.text);
  }

  /** What JSON.stringify writes for it. */
  toJSON(): unknown {
    return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(this.text);
  }
}

/** Texts that may hold such a number: 16 digits, a part that ends in 0, many zeros or digits after the point, an exponent, -0. */
const SUSPECT = /(?:^|[:,[])\s*-?(?:\d{16}|\d+\.\d*0|\d+\.\d{16}|\d+(?:\.\d+)?[eE]|0\s*(?:[,}\]]|$))/;

type Reviver = (this: unknown, key: string, value: unknown, context: { source?: string }) => unknown;

/**
 * A JSON value.
 * @throws {SyntaxError} when the text is not JSON
 */
export function parseJson(text: string): unknown {
  if (!SUSPECT.test(text)) return JSON.parse(text);
  const keep: Reviver = (_, value, { source }) => typeof value === "number" && source ? exact(value, source) : value;
  return JSON.parse(text, keep as (key: string, value: unknown) => unknown);
}

function exact(value: number, source: string): number | ExactNumber {
  const text = /[.eE]/.test(source) ? pythonFloat(value) : BigInt(source).toString();
  return text === String(value) && !Object.is(value, -0) ? value : new ExactNumber(text);
}

/** Python's repr of a float: the shortest digits, as JavaScript's, but always a point or an exponent. */
export function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const [digits, power] = value.toExponential().split("e"), e = Number(power);
  if (value !== 0 && (e < -4 || e >= 16)) {
    return `${digits}e${e < 0 ? "-" : "+"}${String(Math.abs(e)).padStart(2, "0")}`;
  }
  const text = Object.is(value, -0) ? "-0" : String(value);
  return text.includes(".") ? text : `${text}.0`;
}
