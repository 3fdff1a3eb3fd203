/** Which rows these are: whether held-out ones are trained on too, and whether a resumed run has the data it began with. @module */
import type { Row, Rows } from "./types.ts";

/** 53 bits of a row's ids and weights: FNV-1a (Fowler, Noll, Vo) twice, with different beginnings. */
function hashOf({ ids, weights }: Row): number {
  let a = 0x811c9dc5, b = 0x01234567;
  for (let i = 0; i < ids.length; i++) {
    const token = 2 * ids[i]! + weights[i]!;
    a = Math.imul(a ^ token, 0x01000193);
    b = Math.imul(b ^ token, 0x01000193) ^ (b >>> 15);
  }
  return (a >>> 0) * 0x200000 + ((b >>> 0) & 0x1fffff);
}

/** How many of the held-out rows stand among those that are trained, token by token. */
export function countShared(train: Rows, heldOut: Rows): number {
  const held = new Map<number, number>();
  for (let i = 0; i < heldOut.length; i++) {
    const hash = hashOf(heldOut.at(i));
    held.set(hash, (held.get(hash) ?? 0) + 1);
  }
  let shared = 0;
  for (let i = 0; i < train.length && held.size > 0; i++) {
    const hash = hashOf(train.at(i));
    shared += held.get(hash) ?? 0;
    held.delete(hash);
  }
  return shared;
}

/** A number that is the same for the same rows in the same order, and for hardly any others. */
export function digestRows(rows: Rows): number {
  let digest = rows.length;
  for (let i = 0; i < rows.length; i++) {
    const hash = hashOf(rows.at(i)), low = hash % 0x100000000;
    digest = (Math.imul(digest ^ low, 0x01000193) ^ Math.imul(hash / 0x100000000, 0x9e3779b1)) >>> 0;
  }
  return digest;
}
