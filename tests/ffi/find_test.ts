/** Finding a library and choosing a backend: each order, each refusal with its reason. */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { assetPath } from "../../ffi/assets.ts";
import { locate } from "../../ffi/locate.ts";
import { type Candidate, selectBackend } from "../../ffi/select.ts";
import { BackendError, ConfigError } from "../../src/core/errors.ts";
import { RecordingBackend } from "../../src/core/recording.ts";

const bytes = new TextEncoder().encode("a library"), sha256 = createHash("sha256").update(bytes).digest("hex");
const nowhere = pathToFileURL(join(tmpdir(), "no", "such", "lib.so"));
const folder = mkdtempSync(join(tmpdir(), "unsloth-find-")), file = join(folder, "lib.so");
writeFileSync(file, bytes);
afterAll(() => rmSync(folder, { recursive: true }));

describe("locate()", () => {
  test("takes the path that was given, before the file beside the module", async () => {
    expect(await locate({ name: "test", prebuilt: nowhere, sha256, explicit: file })).toBe(file);
    expect(await locate({ name: "test", prebuilt: pathToFileURL(file), sha256 })).toBe(file);
  });

  test("takes UNSLOTH_LIB_<NAME>, and refuses it when it names nothing although the shipped file is there", async () => {
    process.env.UNSLOTH_LIB_TEST = file;
    expect(await locate({ name: "test", prebuilt: nowhere, sha256 })).toBe(file);
    process.env.UNSLOTH_LIB_TEST = "missing.so";
    await expect(locate({ name: "test", prebuilt: pathToFileURL(file), sha256 }))
      .rejects.toThrow("Cannot open the test library: UNSLOTH_LIB_TEST is missing.so, where there is no file");
    delete process.env.UNSLOTH_LIB_TEST;
  });

  test("finds a file inside an installed npm package", async () => {
    const found = await locate({ name: "test", prebuilt: nowhere, sha256, npm: "vitest/package.json" });
    expect(JSON.parse(readFileSync(found, "utf8")).name).toBe("vitest");
  });

  test("names every place it tried", async () => {
    const gone = locate({ name: "test", prebuilt: nowhere, sha256, npm: "no-such-package-of-ours/lib.so" });
    await expect(gone).rejects.toThrow(
      /no file .*lib\.so; npm package no-such-package-of-ours\/lib\.so is not installed; UNSLOTH_LIB_TEST may name one/,
    );
    await expect(gone).rejects.toThrow(BackendError);
  });
});

describe("a library behind http (as when imported from JSR)", () => {
  let server: Server, base: string, asked = 0, cache: string;
  const before = process.env.UNSLOTH_CACHE;
  beforeAll(async () => {
    server = createServer((request, answer) => {
      asked++;
      answer.statusCode = request.url === "/lib.so" ? 200 : 404;
      answer.end(bytes);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  beforeEach(() => {
    cache = process.env.UNSLOTH_CACHE = mkdtempSync(join(folder, "cache-"));
    asked = 0;
  });
  afterAll(() => {
    if (before === undefined) delete process.env.UNSLOTH_CACHE;
    else process.env.UNSLOTH_CACHE = before;
    server.close();
  });

  test("is fetched once, kept, and found again without the network", async () => {
    const path = await assetPath(new URL(`${base}/lib.so`), sha256);
    expect([...readFileSync(path)]).toEqual([...bytes]);
    expect(await locate({ name: "test", prebuilt: new URL(`${base}/lib.so`), sha256 })).toBe(path);
    expect(asked).toBe(1);
  });

  test("is fetched again when the kept file was damaged", async () => {
    const path = await assetPath(new URL(`${base}/lib.so`), sha256);
    writeFileSync(path, "damaged");
    expect([...readFileSync(await assetPath(new URL(`${base}/lib.so`), sha256))]).toEqual([...bytes]);
    expect(asked).toBe(2);
  });

  test("is refused when it is another file, and nothing is kept", async () => {
    const wrong = sha256.replace(/^./, (c) => c === "0" ? "1" : "0");
    await expect(assetPath(new URL(`${base}/lib.so`), wrong)).rejects.toThrow(`its SHA-256 is ${sha256} and must be`);
    expect(readdirSync(cache)).toEqual([]);
  });

  test("is refused with the server's answer", async () => {
    await expect(locate({ name: "test", prebuilt: new URL(`${base}/gone.so`), sha256 }))
      .rejects.toThrow(/Cannot find the test library: .*the server answered 404/);
  });
});

describe("selectBackend()", () => {
  const fine = (name: Candidate["name"]): Candidate => ({
    name,
    open: () => Promise.resolve(Object.assign(new RecordingBackend(), { name, device: `${name}, four threads` })),
  });
  const broken = (name: Candidate["name"], why: string): Candidate => ({
    name,
    open: () => Promise.reject(new BackendError(why)),
  });

  test("auto takes the first that opens and says which, after the refusals before it", async () => {
    const lines: string[] = [];
    const candidates = [broken("cuda", "Cannot use cuda: no driver"), fine("wasm"), fine("metal")];
    const be = await selectBackend({ backend: "auto", candidates, log: (l) => lines.push(l) });
    expect(be.name).toBe("wasm");
    expect(lines).toEqual(["Backend cuda refused: Cannot use cuda: no driver", "Backend wasm: wasm, four threads"]);
  });

  test("a named backend is opened or refused; no other takes its place", async () => {
    const candidates = [broken("cuda", "Cannot use cuda: no driver"), fine("wasm")];
    expect((await selectBackend({ backend: "wasm", candidates })).name).toBe("wasm");
    await expect(selectBackend({ backend: "cuda", candidates })).rejects.toThrow("Cannot use cuda: no driver");
  });

  test("an unknown name lists the known ones", async () => {
    const asked = selectBackend({ backend: "tpu", candidates: [fine("cuda"), fine("wasm")] });
    await expect(asked).rejects.toThrow('Cannot use backend "tpu": it must be one of auto, cuda, wasm');
    await expect(asked).rejects.toThrow(ConfigError);
  });

  test("when all refuse, the error holds every reason", async () => {
    const candidates = [broken("cuda", "no driver"), broken("wasm", "no SIMD")];
    await expect(selectBackend({ backend: "auto", candidates }))
      .rejects.toThrow("Cannot open any backend:\nBackend cuda refused: no driver\nBackend wasm refused: no SIMD");
  });

  test("a device is looked for among the GPUs only, and reaches the one that opens", async () => {
    let got: unknown;
    const cuda: Candidate = { name: "cuda", open: (o) => (got = o.device, fine("cuda").open(o)) };
    expect((await selectBackend({ backend: "auto", candidates: [fine("wasm"), cuda], device: 2 })).name).toBe("cuda");
    expect(got).toBe(2);
    const none = selectBackend({ backend: "auto", candidates: [broken("cuda", "no driver"), fine("wasm")], device: 0 });
    await expect(none).rejects.toThrow("no driver");
    const cpu = selectBackend({ backend: "wasm", candidates: [fine("wasm")], device: 1 });
    await expect(cpu).rejects.toThrow('Cannot use device 1 of backend "wasm": it computes on the CPU');
  });

  test("hands the user's words to the candidate", async () => {
    let got: unknown;
    const candidate: Candidate = {
      name: "wasm",
      open: (o) => {
        got = o.threads;
        return Promise.resolve(new RecordingBackend());
      },
    };
    await selectBackend({ backend: "wasm", candidates: [candidate], threads: 3 });
    expect(got).toBe(3);
  });
});
