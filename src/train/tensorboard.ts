/**
 * TensorBoard event files: TFRecords (length, masked CRC-32C, bytes, masked CRC-32C) of Event messages.
 * Fields: Event {1 wall_time double, 2 step int64, 3 file_version string, 5 summary}, Summary {1 value},
 * Value {1 tag string, 2 simple_value float} (tensorflow/core/util/event.proto, framework/summary.proto).
 * @module
 */
import { appendFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";

const CRC_TABLE: Uint32Array = new Uint32Array(256).map((_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1; // Castagnoli, reflected
  return c >>> 0;
});

/** CRC-32C of the bytes. */
export function crc32c(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const b of bytes) c = CRC_TABLE[(c ^ b) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/** TFRecord's masking: rotated right by 15, plus a constant. */
function masked(bytes: Uint8Array): number {
  const c = crc32c(bytes);
  return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0;
}

function u32(x: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, x, true);
  return out;
}

function varint(x: number): number[] {
  const out: number[] = [];
  for (; x >= 128; x = Math.floor(x / 128)) out.push((x % 128) | 128);
  return [...out, x];
}

/** A length-delimited field. */
function field(number: number, bytes: ArrayLike<number>): number[] {
  return [number << 3 | 2, ...varint(bytes.length), ...Array.from(bytes)];
}

function float(number: number, x: number, size: 4 | 8): number[] {
  const view = new DataView(new ArrayBuffer(size));
  if (size === 4) view.setFloat32(0, x, true);
  else view.setFloat64(0, x, true);
  return [number << 3 | (size === 4 ? 5 : 1), ...new Uint8Array(view.buffer)];
}

function record(event: number[]): Uint8Array {
  const data = Uint8Array.from(event);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(data.length), true);
  return Uint8Array.from([...length, ...u32(masked(length)), ...data, ...u32(masked(data))]);
}

/** An event file being written. */
export class EventFile {
  readonly path: string;
  readonly #encoder = new TextEncoder();

  /**
   * Starts a file `events.out.tfevents.<seconds>.unsloth` in `dir`.
   * @param now seconds since 1970
   */
  constructor(dir: string, now: number = Date.now() / 1000) {
    mkdirSync(dir, { recursive: true });
    this.path = join(dir, `events.out.tfevents.${Math.floor(now)}.unsloth`);
    appendFileSync(this.path, record([...float(1, now, 8), ...field(3, this.#encoder.encode("brain.Event:2"))]));
  }

  /** Appends scalars of one step; what is not finite is written as it is. */
  scalars(step: number, values: Readonly<Record<string, number>>, now: number = Date.now() / 1000): void {
    const summary = Object.entries(values).flatMap(([tag, value]) =>
      field(1, [...field(1, this.#encoder.encode(tag)), ...float(2, value, 4)])
    );
    appendFileSync(this.path, record([...float(1, now, 8), 2 << 3, ...varint(step), ...field(5, summary)]));
  }
}
