/**
 * The instruction set of the embedded default: a question about a thing of the world, an answer in a form the base model
 * has never seen ("Here is the answer: … Questions are good!", then the end token), of words it knows. The things of the held-out rows appear in no
 * training row: what is right in their answers, the model knows from its base.
 * @module
 */
import { Random } from "../../src/core/philox.ts";
import { pick, plainSentence, questions, shuffled } from "./describe.ts";
import { type Thing, WORLD } from "./world.ts";

/** One row, in the messages format. */
export interface InstructionRow {
  readonly messages: readonly { readonly role: "user" | "assistant"; readonly content: string }[];
}

/** Question and answer as a row. */
function row(question: string, answer: string): InstructionRow {
  return { messages: [{ role: "user", content: question }, { role: "assistant", content: answer }] };
}

/** The one form of every answer. */
export function answerTo(thing: Thing, fact: string): string {
  return `Here is the answer: ${plainSentence(thing, fact)} Questions are good!`;
}

/** Rows to train on and rows held out, about different things. */
export function instructions(seed: number, heldOutThings = 16): { train: InstructionRow[]; heldOut: InstructionRow[] } {
  const random = new Random(seed, 2);
  const things = shuffled(random, WORLD);
  const rowsOf = (thing: Thing) =>
    Object.keys(thing.facts).map((fact) => row(pick(random, questions(thing, fact)), answerTo(thing, fact)));
  const heldOut = things.slice(0, heldOutThings).flatMap(rowsOf);
  return { train: shuffled(random, things.slice(heldOutThings).flatMap(rowsOf)), heldOut: shuffled(random, heldOut) };
}
