import { afterAll, expect, test } from "vitest";
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { curveSvg, drawCurve } from "../../src/train/curve.ts";
import { evalLine, Meter, MetricsFile, readMetrics, trainLine } from "../../src/train/metrics.ts";
import { crc32c, EventFile } from "../../src/train/tensorboard.ts";

const dir = mkdtempSync(join(tmpdir(), "unsloth-metrics-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const step = (n: number, loss: number) => ({ step: n, loss, gradNorm: 1, lr: 1e-4, tokens: 10, seconds: 0.5 });

test("log lines have the shape that Unsloth prints on MLX", () => {
  // The line is quoted from a user's log of Unsloth on MLX.
  const line = "Iter 1: Train loss 3.202, Learning Rate 0.000e+00, It/sec 0.471, Tokens/sec 90.428, " +
    "Trained Tokens 192, Peak mem 5.404 GB";
  const figures = { step: 1, loss: 3.202, gradNorm: 0, lr: 0, stepsPerSecond: 0.471, tokensPerSecond: 90.428 };
  expect(trainLine({ ...figures, trainedTokens: 192, peakBytes: 5.404e9, epoch: 0 })).toBe(line);
  expect(trainLine({ ...figures, lr: 2e-4, trainedTokens: 1, peakBytes: 0, epoch: 0 })).toContain("Rate 2.000e-04,");
  expect(evalLine({ step: 5, loss: 1.5, seconds: 2, tokens: 9 })).toBe("Iter 5: Val loss 1.500, Val took 2.000s");
});

test("a line's loss is the mean of its steps, and its speeds are over their seconds", () => {
  const meter = new Meter(100);
  expect(meter.take(0, 0)).toBe(null);
  meter.add(step(1, 4), 40);
  meter.add(step(2, 2), 60);
  expect(meter.take(7, 0.5)).toMatchObject({
    step: 2,
    loss: 3,
    stepsPerSecond: 2,
    tokensPerSecond: 100,
    trainedTokens: 120,
    peakBytes: 7,
  });
  meter.add(step(3, 1), 10);
  expect(meter.take(7, 0.5)).toMatchObject({ loss: 1, stepsPerSecond: 2, tokensPerSecond: 20, trainedTokens: 130 });
});

test("metrics.jsonl starts anew, or goes on after a step and drops what a killed run wrote later", () => {
  const path = join(dir, "metrics.jsonl");
  const first = new MetricsFile(path);
  for (const n of [1, 2, 3]) first.step(step(n, 4 - n));
  first.evaluation({ step: 2, loss: 9, seconds: 1, tokens: 5 });
  appendFileSync(path, '{"step":4,"lo'); // cut off by a kill
  new MetricsFile(path, 2).step(step(3, 0.5));
  expect(readMetrics(path).map((m) => [m.step, m.loss ?? m.evalLoss])).toEqual([[1, 3], [2, 2], [2, 9], [3, 0.5]]);
  expect(readMetrics(path)[2]).toEqual({ step: 2, evalLoss: 9, seconds: 1, tokens: 5 });
  new MetricsFile(path);
  expect(readMetrics(path)).toEqual([]);
});

test("drawCurve() puts the first loss at the top left and the last at the bottom right", () => {
  const lines = drawCurve([[1, 3], [10, 1]], 20, 4);
  expect(lines).toHaveLength(5);
  expect(lines[0]).toMatch(/^3\.000 ┤[^⠀]/);
  expect(lines[3]).toMatch(/^1\.000 ┤.*[^⠀]$/);
  expect(lines[4].trim().split(/\s+/)).toEqual(["1", "10"]);
  expect(drawCurve([[1, NaN]])).toEqual([]);
  expect(drawCurve([[1, 2]], 10, 2)[0]).toContain("┤");
});

test("curveSvg() draws both curves inside its frame and escapes the title", () => {
  const svg = curveSvg([[1, 3], [2, 2]], [[2, 2.5]], "a < b");
  expect(svg).toContain("a &lt; b");
  const [, points] = svg.match(/points="([^"]+)"/)!;
  for (const [x, y] of points.split(" ").map((p) => p.split(",").map(Number))) {
    expect(x >= 0 && x <= 640 && y >= 0 && y <= 320).toBe(true);
  }
  expect(svg.match(/<circle/g)).toHaveLength(1);
});

test("crc32c() gives the check value of the Castagnoli polynomial", () => {
  expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
});

test("an event file holds framed records whose checksums fit and whose fields read back", () => {
  const file = new EventFile(join(dir, "runs"), 1.5);
  file.scalars(300, { "train/loss": 0.25 }, 2);
  const bytes = readFileSync(file.path), records: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const unmask = (m: number) => {
    const rotated = (m - 0xa282ead8) >>> 0;
    return ((rotated >>> 17) | (rotated << 15)) >>> 0;
  };
  for (let at = 0; at < bytes.length;) {
    const length = Number(view.getBigUint64(at, true));
    expect(unmask(view.getUint32(at + 8, true))).toBe(crc32c(bytes.subarray(at, at + 8)));
    records.push(bytes.subarray(at + 12, at + 12 + length));
    expect(unmask(view.getUint32(at + 12 + length, true))).toBe(crc32c(bytes.subarray(at + 12, at + 12 + length)));
    at += 16 + length;
  }
  expect(records).toHaveLength(2);
  expect(new TextDecoder().decode(records[0])).toContain("brain.Event:2");
  const event = records[1], text = new TextDecoder("latin1").decode(event);
  expect([...event.subarray(9, 12)]).toEqual([2 << 3, 0xac, 0x02]); // step 300 as a varint
  expect(text).toContain("train/loss");
  expect(new DataView(event.buffer, event.byteOffset + event.length - 4).getFloat32(0, true)).toBe(0.25);
});
