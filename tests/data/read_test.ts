/** Reading files: what each kind gives, how broken places are named, and that nothing is held whole. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { DataError } from "../../src/core/errors.ts";
import { ExactNumber } from "../../src/core/json.ts";
import { findFiles, type RawRecord, readRecords } from "../../src/data/read/mod.ts";

const root = mkdtempSync(join(tmpdir(), "data-"));
afterAll(() => rmSync(root, { recursive: true }));
let count = 0;

async function read(name: string, body: string | Uint8Array): Promise<RawRecord[]> {
  const dir = join(root, String(count++));
  mkdirSync(dir);
  writeFileSync(join(dir, name), body);
  const out: RawRecord[] = [];
  for await (const r of readRecords(findFiles(join(dir, name)))) out.push(r);
  return out;
}
const brief = (records: RawRecord[]) => records.map((r) => [r.line, r.value ?? r.bad]);

describe(".jsonl", () => {
  test("may be one array, as some are saved", async () => {
    for (const text of ['[{"a":1},{"a":2}]', '\ufeff[\n{"a":1},\r\n{"a":2}\n]\n', ' \n[{"a":1},{"a":2}]']) {
      expect((await read("array.jsonl", text)).map((r) => r.value)).toEqual([{ a: 1 }, { a: 2 }]);
    }
  });
  test("gives a record a line; a byte-order mark, CRLF and a last line without an end do not matter", async () => {
    expect(brief(await read("a.jsonl", '\ufeff{"a":1}\r\n{"a":"é😀"}'))).toEqual([[1, { a: 1 }], [2, { a: "é😀" }]]);
  });
  test("names the lines that are empty, broken, of another kind or not UTF-8, and ends quietly on empty lines", async () => {
    const body = Buffer.concat([
      Buffer.from('{"a":1}\n\n{"a":\n[1]\n'),
      Buffer.from([0xff, 0x0a]),
      Buffer.from('{"a":2}\n\n\n'),
    ]);
    const records = await read("a.jsonl", body);
    expect(records.map((r) => r.line)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(records.map((r) => r.bad?.replace(/\(.*/, "").trim())).toEqual([
      ...[
        undefined,
        "the line is empty",
        "it is not JSON",
        "the record is an array and should be an object",
        "it is not UTF-8; save the file as UTF-8",
      ],
      undefined,
    ]);
  });
  test("reads lines across the pieces of a file", async () => {
    const rows = Array.from({ length: 300 }, (_, i) => ({ i, text: "ü".repeat(7001 + i) }));
    const records = await read("a.jsonl", rows.map((r) => JSON.stringify(r)).join("\n"));
    expect(records.map((r) => r.value)).toEqual(rows);
  });
});

describe(".json", () => {
  test("gives the elements of an array with their lines, whatever strings hold", async () => {
    const records = await read("a.json", '[\n {"a": "x],[{\\"\\\\"},\n\n {"b": [1, {"c": "}"}]}, {"d": 1}\n]\n');
    expect(brief(records)).toEqual([[2, { a: 'x],[{"\\' }], [4, { b: [1, { c: "}" }] }], [4, { d: 1 }]]);
  });
  test("streams arrays across the pieces of a file", async () => {
    const rows = Array.from({ length: 300 }, (_, i) => ({ i, text: '"\\[😀'.repeat(1501 + i) }));
    for (const space of [undefined, 1]) {
      expect((await read("a.json", JSON.stringify(rows, null, space))).map((r) => r.value)).toEqual(rows);
    }
  });
  test("names broken elements, holes and a cut-off end, and goes on", async () => {
    const records = await read("a.json", '[{"a":1},\n{"a":},\n,\n{"a":2}, 7,\n]');
    expect(records.map((r) => [r.line, r.value ? "ok" : "bad"])).toEqual([
      ...[[1, "ok"], [2, "bad"], [3, "bad"], [4, "ok"], [4, "bad"], [5, "bad"]],
    ]);
    expect((await read("b.json", '[{"a":1},{"a"')).at(-1)!.bad).toBe("the file ends inside the array");
  });
  test("names what follows the array, which would be lost without a word", async () => {
    const row = '[{"a":1}]';
    for (const more of [row, "garbage", `${" ".repeat(3 << 20)}${row}`]) {
      const records = await read("a.json", `${row}\n${more}`);
      expect(brief(records)).toEqual([[1, { a: 1 }], [2, "it stands after the end of the array"]]);
    }
    expect(brief(await read("a.json", `${row}\n \r\n`))).toEqual([[1, { a: 1 }]]);
  });
  test("names a key that stands twice in a record, whatever else looks like one", async () => {
    const records = await read("a.json", '[{"a":"b","b":1,"a":2},\n{"a":"a","b":{"a":[{"a":1}]},"c":"\\"a\\":"}]');
    expect(brief(records)).toEqual([[1, "it has 'a' twice"], [2, { a: "a", b: { a: [{ a: 1 }] }, c: '"a":' }]]);
  });
  test("is UTF-8 or refused, an object over several lines too", async () => {
    for (const name of ["a.json", "a.jsonl", "a.csv", "a.txt"]) {
      for (const order of ["le", "be"]) {
        const bytes = Buffer.from('[{"a":1}]', "utf16le");
        await expect(read(name, order === "le" ? bytes : bytes.swap16())).rejects.toThrow(
          "in UTF-16; save the file as",
        );
      }
    }
    await expect(read("a.json", Buffer.from('{\n"text": "caf\xe9"\n}', "latin1"))).rejects.toThrow("not UTF-8");
  });
  test("takes an empty array, lines under this name, and an object around the records", async () => {
    expect(await read("a.json", "[ ]")).toEqual([]);
    expect(brief(await read("a.json", '{"a":1}\n{"a":2}\n'))).toEqual([[1, { a: 1 }], [2, { a: 2 }]]);
    expect(brief(await read("a.json", '{"data": [{"a":1}]}'))).toEqual([[1, { a: 1 }]]);
    expect(brief(await read("a.json", '{\n"version": 1,\n"rows": [{"a":1}]}'))).toEqual([[1, { a: 1 }]]);
    expect(brief(await read("a.json", '{"a":1}'))).toEqual([[1, { a: 1 }]]);
  });
  test("refuses what begins otherwise", async () => {
    await expect(read("a.json", "hello")).rejects.toThrow(DataError);
  });
});

describe(".csv and .tsv", () => {
  test("follow RFC 4180: quotes, doubled quotes, separators and line ends inside fields", async () => {
    const records = await read("a.csv", 'q,a\r\n"x, ""y""\r\nz",1\r\nplain,"",\n"",\n"last",é');
    expect(brief(records)).toEqual([
      ...[[2, { q: 'x, "y"\r\nz', a: "1" }], [4, "it has 3 fields and the header 2"]],
      ...[[5, { q: "", a: "" }], [6, { q: "last", a: "é" }]],
    ]);
  });
  test("find the separator and name empty lines and open quotes", async () => {
    expect(brief(await read("a.csv", "q;a\n1,5;2\n\n3;4\n"))).toEqual([
      ...[[2, { q: "1,5", a: "2" }], [3, "the line is empty"], [4, { q: "3", a: "4" }]],
    ]);
    expect(brief(await read("a.tsv", "q\ta\n1\t2"))).toEqual([[2, { q: "1", a: "2" }]]);
    expect((await read("a.csv", 'q,a\n"1,2\n3,4\n')).at(-1)).toMatchObject({ line: 2, bad: "a quote is not closed" });
    expect(brief(await read("a.csv", 'q,a\n"1"x,2\n3,4\n'))).toEqual([
      ...[[2, "text follows a closing quote"], [3, { q: "3", a: "4" }]],
    ]);
  });
  test("refuse a column that stands twice and bytes that are not UTF-8", async () => {
    await expect(read("a.csv", "q,q\n1,2")).rejects.toThrow("column 'q' twice");
    await expect(read("a.csv", Buffer.from([0x71, 0x0a, 0xff]))).rejects.toThrow("not UTF-8");
  });
});

describe(".parquet", () => {
  for (const codec of ["snappy", "zstd", "gzip"]) {
    test(`written by pyarrow with ${codec} gives nested records, row group by row group`, async () => {
      const path = fileURLToPath(new URL(`fixtures/messages_${codec}.parquet`, import.meta.url));
      const records: RawRecord[] = [];
      for await (const r of readRecords(findFiles(path))) records.push(r);
      // As make_parquet.py makes them.
      expect(records.map((r) => r.value)).toEqual([1, 2, 3, 4, 5].map((i) => ({
        messages: [{ role: "user", content: `Frage ${i} – 😀` }, { role: "assistant", content: "Antwort".repeat(i) }],
        n: i,
        big: new ExactNumber(String(9007199254740992n + BigInt(i))),
      })));
    });
  }
  test("broken gives a DataError with the file", async () => {
    await expect(read("a.parquet", "")).rejects.toThrow("its 0 bytes are no Parquet file");
    await expect(read("a.parquet", "PAR1 not really")).rejects.toThrow(DataError);
  });
});

describe("a text file", () => {
  test("is one record", async () => {
    expect(brief(await read("a.txt", "one\n\ntwo\n"))).toEqual([[1, { text: "one\n\ntwo", first: true, last: true }]]);
  });
  test("that is long comes in pieces that end at line ends and lose nothing", async () => {
    const body = Array.from({ length: 400 }, (_, i) => `${i} ${"word ".repeat(1300)}`).join("\n");
    const pieces = (await read("a.md", body)).map((r) => r.value!);
    expect(pieces.length).toBe(3);
    expect(pieces.map((p) => p.text).join("")).toBe(body);
    expect(pieces.map((p) => [p.first, p.last])).toEqual([[true, false], [false, false], [false, true]]);
  });
});

describe("a folder", () => {
  function folder(files: Record<string, string>): string {
    const dir = join(root, String(count++));
    for (const [name, body] of Object.entries(files)) {
      mkdirSync(join(dir, name, ".."), { recursive: true });
      writeFileSync(join(dir, name), body);
    }
    return dir;
  }
  test("is read file by file in order of names, without what is no data", async () => {
    const dir = folder({
      "b.jsonl": '{"n":2}',
      "a.json": '[{"n":1}]',
      "README.md": "x",
      "dataset_infos.json": "{}",
      "c.bin": "",
    });
    const out: unknown[] = [];
    for await (const r of readRecords(findFiles(dir))) out.push(r.value!.n);
    expect(out).toEqual([1, 2]);
  });
  test("with splits gives the one to train on and says what it leaves", () => {
    const files = findFiles(folder({ "data/train-0.jsonl": "", "data/test-0.jsonl": "", "data/validation.jsonl": "" }));
    expect(files.paths.map((p) => p.slice(-13))).toEqual(["train-0.jsonl"]);
    expect(files.leftOut.length).toBe(2);
  });
  test("is refused without data, with mixed kinds, or when it is not there", () => {
    expect(() => findFiles(folder({ "a.bin": "" }))).toThrow("no file in it ends in");
    expect(() => findFiles(folder({ "a.txt": "x", "b.jsonl": "{}" }))).toThrow("mixes texts with records");
    expect(() => findFiles(join(root, "none.jsonl"))).toThrow("there is no such file");
    expect(() => findFiles(join(folder({ "a.bin": "" }), "a.bin"))).toThrow("its ending is none of");
  });
});
