/** The closest of some names to a mistyped one. @module */

/** Edits (insert, delete, replace, swap of neighbours) between two words: optimal string alignment. */
export function distance(a: string, b: string): number {
  const d: number[][] = Array.from({ length: a.length + 1 }, (_, i) => [i, ...new Array<number>(b.length).fill(0)]);
  for (let j = 0; j <= b.length; j++) d[0][j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      d[i][j] = Math.min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + cost);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) d[i][j] = Math.min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.length][b.length];
}

/** The nearest of `names`, if it is near: at most two edits in five letters. A name that contains the word counts as near. */
export function nearest(word: string, names: readonly string[]): string | null {
  const scored = names.map((name) => ({ name, cost: distance(word, name) })).sort((x, y) => x.cost - y.cost);
  const best = scored[0];
  if (best && best.cost <= Math.max(2, Math.floor(0.4 * word.length))) return best.name;
  return word.length >= 3 ? names.find((n) => n.includes(word)) ?? null : null;
}
