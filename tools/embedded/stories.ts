/** The corpus's documents: descriptions, comparisons, stories with people in them, small sums. @module */
import type { Random } from "../../src/core/philox.ts";
import { pick, plainSentence, question, sentence, shuffled } from "./describe.ts";
import { ANIMALS, aThing, capital, FOODS, type Thing, TOOLS, WORLD } from "./world.ts";

interface Person {
  readonly name: string;
  readonly they: "he" | "she";
  readonly their: "his" | "her";
}

const PEOPLE: readonly Person[] = [
  ..."Tom Ben Max Leo Sam Paul Tim Jack Oscar Finn".split(" ").map((name) =>
    ({ name, they: "he", their: "his" }) as const
  ),
  ..."Anna Lily Mia Emma Rosa Nora Ella Clara Ida Zoe".split(" ").map((name) =>
    ({ name, they: "she", their: "her" }) as const
  ),
];
const ELDERS = ["mother", "father", "aunt", "uncle", "teacher", "grandmother", "grandfather", "friend"];
const TIMES = ["morning", "evening", "afternoon", "day", "night"];
const WEATHER = ["sunny", "rainy", "cold", "warm", "windy", "quiet", "foggy", "bright"];
const FEELINGS = ["happy", "glad", "surprised", "tired", "hungry", "curious", "proud", "a little sad", "very calm"];
const TRAITS = ["small", "old", "friendly", "shy", "clever", "lazy", "brave", "beautiful", "strange", "young"];
const SPOTS = ["the village", "the market", "the lake", "the old bridge", "the library", "the town", "the station"];
const NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/** A paragraph about one thing: its kind, then its facts in any order. */
function description(random: Random): string {
  const thing = pick(random, WORLD);
  const opening = pick(random, [
    `${capital(aThing(thing.name))} is ${aThing(thing.kind)}.`,
    `The ${thing.name} is ${aThing(thing.kind)}.`,
    `This is a text about the ${thing.name}.`,
    `Many people know the ${thing.name}.`,
    `Have you ever seen ${aThing(thing.name)}?`,
  ]);
  const facts = shuffled(random, Object.keys(thing.facts));
  const body = facts.map((fact, i) => sentence(random, thing, fact, i > 0 && random.uniform() < 0.5));
  const closing = pick(random, [
    `That is what we know about the ${thing.name}.`,
    `So now you know the ${thing.name}.`,
    `People like the ${thing.name}.`,
    "",
  ]);
  return [opening, ...body, closing].filter((s) => s !== "").join(" ");
}

/** Two things side by side. */
function comparison(random: Random): string {
  const [a, b] = shuffled(random, WORLD);
  const lower = (s: string) => s.charAt(0).toLowerCase() + s.slice(1);
  const fact = (t: Thing) => plainSentence(t, pick(random, Object.keys(t.facts)));
  const pairs = Array.from({ length: 2 + random.below(2) }, () => {
    const first = fact(a).slice(0, -1), second = lower(fact(b));
    return `${first}${pick(random, [", but ", " and ", ", while "])}${second}`;
  });
  return `${capital(aThing(a.name))} is not ${aThing(b.name)}. ${pairs.join(" ")}`;
}

/** All things that share a kind and a fact's first words. */
function listing(random: Random): string {
  const chosen = shuffled(random, ANIMALS).slice(0, 3 + random.below(3));
  const names = chosen.map((t) => `the ${t.name}`);
  const all = `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  const told = chosen.map((t) => sentence(random, t, pick(random, Object.keys(t.facts))));
  return `Here is a short list of animals: ${all}. ${told.join(" ")}`;
}

/** A question asked and answered aloud. */
function talk(random: Random, person: Person, thing: Thing): string {
  const fact = pick(random, Object.keys(thing.facts));
  const elder = pick(random, ELDERS), ask = question(random, thing, fact), answer = plainSentence(thing, fact);
  const spoken = answer.slice(0, -1);
  return pick(random, [
    `"${ask}" asked ${person.name}. "${spoken}," said ${person.their} ${elder}.`,
    `${person.name} had a question. "${ask}" ${capital(person.their)} ${elder} said, "${answer}"`,
    `"${ask}" ${person.they} asked. The answer came at once: "${answer}"`,
    `${capital(person.their)} ${elder} asked, "${ask}" "${spoken}," said ${person.name}. "That is right!"`,
  ]);
}

function opening(random: Random, p: Person): string {
  const weather = pick(random, WEATHER), time = pick(random, TIMES), spot = pick(random, SPOTS);
  return pick(random, [
    `One ${weather} ${time} ${p.name} walked to ${spot}.`,
    `It was a ${weather} ${time}. ${p.name} was near ${spot} and felt ${pick(random, FEELINGS)}.`,
    `Once there was a child called ${p.name}. On a ${weather} ${time} ${p.they} came to ${spot}.`,
    `${p.name} got up early and looked out of the window. It was a ${weather} ${time}.`,
    `In a house near ${spot} lived a child called ${p.name}.`,
  ]);
}

function meeting(random: Random, p: Person, thing: Thing): string {
  const trait = pick(random, TRAITS);
  return pick(random, [
    `There ${p.they} saw ${aThing(trait)} ${thing.name}.`,
    `On the way ${p.they} met ${aThing(trait)} ${thing.name}.`,
    `Suddenly ${aThing(trait)} ${thing.name} stood before ${p.name}.`,
    `${p.name} had never seen such ${aThing(trait)} ${thing.name} before.`,
  ]) + " " + sentence(random, thing, pick(random, Object.keys(thing.facts)), random.uniform() < 0.3);
}

function snack(random: Random, p: Person): string {
  const food = pick(random, FOODS);
  return pick(random, [
    `${p.name} was hungry and ate ${aThing(food.name)}. ${sentence(random, food, pick(random, ["taste", "colour"]))}`,
    `In ${p.their} bag was ${aThing(food.name)}. ${sentence(random, food, pick(random, Object.keys(food.facts)))}`,
    `${capital(p.their)} ${pick(random, ELDERS)} gave ${p.name} ${aThing(food.name)}. ${plainSentence(food, "taste")}`,
  ]);
}

function task(random: Random, p: Person): string {
  const tool = pick(random, TOOLS);
  return pick(random, [
    `${p.name} wanted to ${tool.facts.use}, so ${p.they} took the ${tool.name}.`,
    `${p.name} looked for the ${tool.name}. ${plainSentence(tool, "kept")} Soon ${p.they} found it.`,
    `"I want to ${tool.facts.use}," said ${p.name}. "Then take the ${tool.name}," said ${p.their} ${
      pick(random, ELDERS)
    }.`,
  ]);
}

/** A sum with things one can hold. */
function sum(random: Random, p: Person): string {
  const item = `${pick(random, [...TOOLS, ...FOODS].filter((t) => !/[ysxo]$|fe$/.test(t.name))).name}s`;
  const have = 2 + random.below(7), change = 1 + random.below(Math.min(have - 1, 10 - have) || 1);
  const more = have + change <= 10 && random.uniform() < 0.5;
  const left = more ? have + change : have - change;
  const event = more
    ? `${capital(p.they)} found ${NUMBERS[change]} more.`
    : `${capital(p.they)} gave away ${NUMBERS[change]}.`;
  return `${p.name} had ${NUMBERS[have]} ${item}. ${event} Now ${p.they} had ${NUMBERS[left]}.`;
}

function ending(random: Random, p: Person): string {
  return pick(random, [
    `Then ${p.name} went home and slept well.`,
    `At the end of the day ${p.name} was ${pick(random, FEELINGS)}.`,
    `${p.name} told ${p.their} ${pick(random, ELDERS)} all about it.`,
    `"What a good day," said ${p.name}.`,
    `Questions are good, thought ${p.name}. Answers are better.`,
  ]);
}

/** A day of one person: who, where, three to five things that happen. */
function story(random: Random): string {
  const p = pick(random, PEOPLE);
  const beats = Array.from({ length: 3 + random.below(3) }, () => {
    const thing = pick(random, WORLD), roll = random.uniform();
    if (roll < 0.4) return talk(random, p, thing);
    if (roll < 0.65) return meeting(random, p, pick(random, ANIMALS));
    if (roll < 0.8) return snack(random, p);
    return roll < 0.92 ? task(random, p) : sum(random, p);
  });
  return [opening(random, p), ...beats, ending(random, p)].join(" ");
}

/** Two or three texts of any kind under each other, which make one document. */
export function document(random: Random): string {
  const one = () => {
    const roll = random.uniform();
    if (roll < 0.35) return description(random);
    if (roll < 0.45) return comparison(random);
    return roll < 0.5 ? listing(random) : story(random);
  };
  return Array.from({ length: 2 + random.below(2) }, one).join("\n");
}
