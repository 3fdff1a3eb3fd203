/** How attention's backward is cut into rounds. That the bits stay the same is threads_test's. */
import { expect, test } from "vitest";
import { roundsOf } from "../../wasm/attention_bwd.ts";

/** What each round does, a kv head, query head and block at a time. */
function work(pairs: number[], from: number, K: number, G: number, room: number): string[] {
  const done: string[] = [];
  for (const r of roundsOf(pairs, from, K, G, room)) {
    let held = 0;
    for (let kv = r.kv; kv < r.kv + r.kvs; kv++) {
      for (let g = r.g; g < r.g + r.gs; g++) {
        for (let b = r.from; b < r.to; b++) done.push(`${kv} ${g} ${b}`), held += pairs[b];
      }
    }
    expect(held).toBeLessThanOrEqual(room);
  }
  return done;
}

test("rounds take every block of every head once, in the order of each sum, and never more than fits", () => {
  for (const pairs of [[1], [1, 2, 3, 4, 1, 2, 0], [0, 0], Array.from({ length: 9 }, (_, i) => i + 1)]) {
    for (const [from, K, G] of [[0, 1, 1], [1, 3, 3], [0, 8, 2]]) {
      for (const room of [9, 10, 33, 1000]) {
        const done = work(pairs, from, K, G, room);
        for (let kv = from; kv < K; kv++) {
          const want = Array.from({ length: G }, (_, g) => pairs.map((_, b) => `${kv} ${g} ${b}`)).flat();
          expect(done.filter((x) => x.startsWith(`${kv} `)), `${pairs}, room ${room}`).toEqual(want);
        }
        expect(done.length).toBe((K - from) * G * pairs.length);
      }
    }
  }
});
