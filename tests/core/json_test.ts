/** Numbers of JSON stay what Python makes of them. Expected: Python 3.12, `json.dumps(json.loads(text))`. */
import { describe, expect, test } from "vitest";
import { ExactNumber, parseJson } from "../../src/core/json.ts";

/** As the text was, and as Python writes it. */
const NUMBERS: [string, string][] = [
  ["12345678901234567890", "12345678901234567890"],
  ["-9007199254740993", "-9007199254740993"],
  ["9007199254740991", "9007199254740991"],
  ["1.0", "1.0"],
  ["-0.0", "-0.0"],
  ["-0", "0"],
  ["100.00", "100.0"],
  ["0.10", "0.1"],
  ["3.25", "3.25"],
  ["1e3", "1000.0"],
  ["1E+2", "100.0"],
  ["1e16", "1e+16"],
  ["123456789012345.0", "123456789012345.0"],
  ["1234567890123456789.0", "1.2345678901234568e+18"],
  ["0.0001", "0.0001"],
  ["0.00001", "1e-05"],
  ["1.5e-7", "1.5e-07"],
  ["0.1234567890123456789", "0.12345678901234568"],
  ["7", "7"],
  ["0", "0"],
];

describe("numbers of JSON", () => {
  test.each(NUMBERS)("%s", (text, python) => {
    expect(JSON.stringify(parseJson(text))).toBe(python);
    expect(JSON.stringify(parseJson(`{"a": [${text}], "b":${text}}`))).toBe(`{"a":[${python}],"b":${python}}`);
  });
  test("are plain where JavaScript writes the same", () => {
    expect(parseJson('{"a": 1, "b": 2.5, "c": "1.0 and, 12345678901234567890"}')).toEqual({
      ...{ a: 1, b: 2.5, c: "1.0 and, 12345678901234567890" },
    });
    expect(parseJson("[1.0]")).toEqual([new ExactNumber("1.0")]);
  });
});
