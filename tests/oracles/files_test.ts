/** tensorboard reads our event files, and the safetensors library our safetensors. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type TensorToWrite, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { EventFile } from "../../src/train/tensorboard.ts";
import { inFolder } from "../formats/files.ts";
import { askPython, python, why } from "./python.ts";

describe.skipIf(!python)(`other programs${why}`, () => {
  test("tensorboard reads every scalar of a run at its step, and of a run that was taken up again", async () => {
    await inFolder(async (dir) => {
      const first = new EventFile(dir, 1_700_000_000.25);
      for (const n of [1, 2, 127, 128]) {
        first.scalars(
          n,
          { "train/loss": 4 / n, "train/lr": 1e-4 * n },
          1_700_000_000 + n,
        );
      }
      first.scalars(128, { "eval/loss": 0.5 }, 1_700_000_200);
      new EventFile(dir, 1_700_000_300).scalars(3_000_000_000, {
        "train/loss": -1.5,
      }, 1_700_000_301);
      const read = await askPython<Record<string, [number, number, number][]>>(
        "tensorboard_check.py",
        dir,
      );
      const f = Math.fround, at = 1_700_000_000;
      expect(read).toEqual({
        "train/loss": [
          ...[1, 2, 127, 128].map((n) => [n, f(4 / n), at + n]),
          [3_000_000_000, -1.5, at + 301],
        ],
        "train/lr": [1, 2, 127, 128].map((n) => [n, f(1e-4 * n), at + n]),
        "eval/loss": [[128, 0.5, at + 200]],
      });
    });
  });

  test("safetensors reads every type we write, scalars and empty tensors too", async () => {
    await inFolder(async (dir) => {
      const bytes = (x: ArrayBufferView): Uint8Array => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
      const tensor = (
        name: string,
        dtype: TensorToWrite["dtype"],
        shape: number[],
        x: ArrayBufferView,
      ): TensorToWrite => {
        return { name, dtype, shape, chunks: () => [bytes(x)] };
      };
      const path = join(dir, "model.safetensors");
      await writeSafetensors(path, [
        tensor("a.f32", "f32", [2, 2], Float32Array.of(1, -0.1, 3e38, 1e-40)),
        tensor("bf16 ü", "bf16", [3], Uint16Array.of(0x3f80, 0xc000, 0x4049)),
        tensor("f16", "f16", [1, 2], Uint16Array.of(0x3c00, 0xfbff)),
        tensor("i32", "i32", [2], Int32Array.of(-1, 2 ** 31 - 1)),
        tensor("u8", "u8", [3], Uint8Array.of(0, 128, 255)),
        tensor("none", "f32", [0, 4], new Float32Array(0)),
        tensor("scalar", "f32", [], Float32Array.of(7)),
      ], { format: "pt" });
      expect(await askPython("safetensors_check.py", path)).toEqual({
        "a.f32": ["torch.float32", [2, 2], [
          1,
          Math.fround(-0.1),
          Math.fround(3e38),
          Math.fround(1e-40),
        ]],
        "bf16 ü": ["torch.bfloat16", [3], [1, -2, 3.140625]],
        f16: ["torch.float16", [1, 2], [1, -65504]],
        i32: ["torch.int32", [2], [-1, 2147483647]],
        u8: ["torch.uint8", [3], [0, 128, 255]],
        none: ["torch.float32", [0, 4], []],
        scalar: ["torch.float32", [], [7]],
        __metadata__: { format: "pt" },
      });
    });
  });
});
