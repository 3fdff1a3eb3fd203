/** Facts as sentences: for every kind of fact several frames, and the questions that ask for it. @module */
import type { Random } from "../../src/core/philox.ts";
import { aThing, type Thing } from "./world.ts";

/** One of several. */
export function pick<T>(random: Random, items: readonly T[]): T {
  return items[random.below(items.length)];
}

/** How a fact is told and asked. In a frame X is the thing ("the fox"), A the thing with its article, F the fact. */
interface Frames {
  readonly tell: readonly string[];
  /** The same with "it" as the subject. */
  readonly it: readonly string[];
  readonly ask: readonly string[];
  /** The plain full answer; the first of `tell`. */
  readonly short: string;
}

const FRAMES: Readonly<Record<string, Frames>> = {
  home: {
    tell: ["X lives F.", "A lives F.", "A makes its home F.", "You can find A F.", "The home of X is F."],
    it: ["It lives F.", "Its home is F.", "You can find it F."],
    ask: ["Where does X live?", "Where can I find A?"],
    short: "F",
  },
  food: {
    tell: ["X eats F.", "A eats F.", "A likes to eat F.", "The food of X is F."],
    it: ["It eats F.", "It likes to eat F.", "Its food is F."],
    ask: ["What does X eat?", "What does A like to eat?"],
    short: "F",
  },
  look: {
    tell: ["X has F.", "A has F.", "You know A by its F2.", "Look at the F2 of X!"],
    it: ["It has F.", "You know it by its F2."],
    ask: ["What does X look like?", "What does A have?"],
    short: "F",
  },
  skill: {
    tell: ["X can F.", "A can F.", "A knows how to F.", "To F is easy for A."],
    it: ["It can F.", "It knows how to F.", "To F is easy for it."],
    ask: ["What can X do?", "What is A good at?"],
    short: "F",
  },
  colour: {
    tell: ["X is F.", "A is F.", "The colour of A is F.", "Every ripe N is F."],
    it: ["It is F.", "Its colour is F."],
    ask: ["What colour is X?", "What is the colour of A?"],
    short: "F",
  },
  taste: {
    tell: ["X tastes F.", "A tastes F.", "The taste of A is F."],
    it: ["It tastes F.", "Its taste is F."],
    ask: ["How does X taste?", "What does A taste like?"],
    short: "F",
  },
  grows: {
    tell: ["X grows F.", "A grows F.", "You can pick A F."],
    it: ["It grows F.", "You can pick it F."],
    ask: ["Where does X grow?", "Where can I pick A?"],
    short: "F",
  },
  dish: {
    tell: ["X is good for F.", "People make F with A.", "With A you can make F.", "A is good for F."],
    it: ["It is good for F.", "People make F with it."],
    ask: ["What is X good for?", "What can I make with A?"],
    short: "F",
  },
  made: {
    tell: ["X is made of F.", "A is made of F.", "They made X of F."],
    it: ["It is made of F."],
    ask: ["What is X made of?", "What is A made of?"],
    short: "F",
  },
  use: {
    tell: ["X helps you to F.", "You use A to F.", "With A you can F.", "If you want to F, take A."],
    it: ["It helps you to F.", "You use it to F.", "With it you can F."],
    ask: ["What is X for?", "What do people do with A?"],
    short: "to F",
  },
  kept: {
    tell: ["X is kept F.", "People keep A F.", "You will find X F."],
    it: ["It is kept F.", "People keep it F."],
    ask: ["Where is X kept?", "Where do people keep A?"],
    short: "F",
  },
  task: {
    tell: ["X F.", "A F.", "A is a person who F.", "Every day X F."],
    it: ["This worker F.", "The worker F every day."],
    ask: ["What does X do?", "What is the work of A?"],
    short: "F",
  },
  place: {
    tell: ["X works F.", "A works F.", "F you can meet A."],
    it: ["The work is done F.", "The worker works F."],
    ask: ["Where does X work?", "Where can I meet A?"],
    short: "F",
  },
  needs: {
    tell: ["X needs F.", "A needs F.", "Without F, A cannot work."],
    it: ["The worker needs F.", "The work needs F."],
    ask: ["What does X need?", "What does A work with?"],
    short: "F",
  },
  moves: {
    tell: ["X moves F.", "A moves F.", "F you can see A."],
    it: ["It moves F.", "You can see it F."],
    ask: ["Where does X move?", "Where can I see A?"],
    short: "F",
  },
  carries: {
    tell: ["X carries F.", "A carries F.", "There is room for F in A."],
    it: ["It carries F."],
    ask: ["What does X carry?", "What can A carry?"],
    short: "F",
  },
  pace: {
    tell: ["X goes F.", "A goes F.", "See how X goes F!"],
    it: ["It goes F."],
    ask: ["How does X go?", "How does A travel?"],
    short: "F",
  },
};

/** Fills a frame; "F2" is the fact without its article, for "its long nose". */
export function fill(frame: string, thing: Thing, fact: string): string {
  const value = thing.facts[fact];
  const text = frame.replaceAll(/\bF2\b/g, value.replace(/^(a|an) /, "")).replaceAll(/\bF\b/g, value)
    .replaceAll(/\bX\b/g, `the ${thing.name}`).replaceAll(/\bN\b/g, thing.name)
    .replaceAll(/(^|[ ,])A\b/g, (_, before: string) => before + aThing(thing.name));
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The plain sentence of a fact: "The fox lives in the forest." */
export function plainSentence(thing: Thing, fact: string): string {
  return fill(FRAMES[fact].tell[0], thing, fact);
}

/** A sentence of the fact in one of its frames; `it` speaks of the thing as "it". */
export function sentence(random: Random, thing: Thing, fact: string, it = false): string {
  return fill(pick(random, it ? FRAMES[fact].it : FRAMES[fact].tell), thing, fact);
}

/** One of the fact's questions. */
export function question(random: Random, thing: Thing, fact: string): string {
  return fill(pick(random, FRAMES[fact].ask), thing, fact);
}

/** All questions of the fact. */
export function questions(thing: Thing, fact: string): string[] {
  return FRAMES[fact].ask.map((frame) => fill(frame, thing, fact));
}

/** The fact in as few words as an answer needs. */
export function shortAnswer(thing: Thing, fact: string): string {
  return FRAMES[fact].short.replace("F", thing.facts[fact]);
}

/** Items in a random order (Fisher and Yates). */
export function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}
