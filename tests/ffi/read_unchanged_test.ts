/** A file that a library opens by its path is read only while it is the one that was opened before. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readUnchanged } from "../../ffi/mapped_files.ts";
import { openBytes } from "../../src/formats/bytes.ts";

const dir = mkdtempSync(join(tmpdir(), "read-"));
afterAll(() => rmSync(dir, { recursive: true }));

test("a file is read when nothing happened, and refused once another lies at its path or it was written to", () => {
  const path = join(dir, "weights"), other = join(dir, "other");
  writeFileSync(path, "abcd");
  writeFileSync(other, "efgh");
  const source = openBytes(path);
  let read = 0;
  readUnchanged(source.file!, () => read++);
  expect(read).toBe(1);
  expect(() => readUnchanged(source.file!, () => writeFileSync(path, "longer"))).toThrow(/changed since it was opened/);
  renameSync(other, path);
  expect(() => readUnchanged(source.file!, () => read++)).toThrow(/Cannot read .*weights.*load the model again/);
  expect(read).toBe(1);
  source.close();
});
