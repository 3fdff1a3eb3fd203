/**
 * The small world of the embedded model: things with a handful of facts each. Every text of the corpus and every answer
 * of the instruction set is made from this table, so what the model should know is written down in one place.
 * A fact completes the sentence frames of describe.ts: "The fox lives {home}", "The fox can {skill}".
 * @module
 */

/** Facts by their name; the frames in describe.ts are chosen by it. */
export type Facts = Readonly<Record<string, string>>;

/** One thing: its name, its kind, its facts. */
export interface Thing {
  readonly name: string;
  readonly kind: string;
  readonly facts: Facts;
}

function table(columns: readonly string[], rows: string): Thing[] {
  return rows.trim().split("\n").map((row) => {
    const [name, kind, ...cells] = row.split("|").map((c) => c.trim());
    if (cells.length !== columns.length) {
      throw new RangeError(`Cannot read "${row}": ${columns.length} facts are needed`);
    }
    return { name, kind, facts: Object.fromEntries(columns.map((c, i) => [c, cells[i]])) };
  });
}

/** Where it lives, what it eats, what it looks like, what it can do. */
export const ANIMALS: readonly Thing[] = table(
  ["home", "food", "look", "skill"],
  `
  cat      | pet    | in a house       | fish            | soft grey fur       | climb a tree
  dog      | pet    | in the garden    | meat            | a wagging tail      | guard the door
  rabbit   | pet    | in a hole        | carrots         | long ears           | jump very far
  hamster  | pet    | in a small cage  | seeds           | round cheeks        | run in a wheel
  parrot   | bird   | in the jungle    | nuts            | bright green wings  | say some words
  cow      | animal | on a farm        | grass           | black and white skin | give milk
  horse    | animal | in a stable      | hay             | a long brown tail   | pull a cart
  sheep    | animal | on a hill        | fresh grass     | thick white wool    | give warm wool
  goat     | animal | on a mountain    | leaves          | two short horns     | climb steep rocks
  pig      | animal | in the mud       | corn            | a flat pink nose    | find roots in the ground
  hen      | bird   | in a barn        | grain           | brown feathers      | lay eggs
  duck     | bird   | on a pond        | bread           | a yellow beak       | swim all day
  goose    | bird   | by the river     | water plants    | a long white neck   | fly very high
  fox      | animal | in the forest    | mice            | red fur             | hide from hunters
  wolf     | animal | in the snow      | deer            | sharp teeth         | run all night
  bear     | animal | in a cave        | honey           | big heavy paws      | sleep all winter
  deer     | animal | in the woods     | bark            | thin brown legs     | run very fast
  owl      | bird   | in a hollow tree | small mice      | large round eyes    | see in the dark
  eagle    | bird   | on a high rock   | snakes          | strong golden wings | see very far
  mouse    | animal | under the floor  | cheese          | tiny pink ears      | hide in a shoe
  squirrel | animal | in an old oak    | acorns          | a thick red tail    | store food for winter
  hedgehog | animal | under dry leaves | worms           | sharp brown spikes  | roll into a ball
  frog     | animal | in a swamp       | flies           | wet green skin      | jump over a stone
  snake    | animal | in the desert    | eggs            | smooth shiny skin   | move without legs
  turtle   | animal | on the beach     | sea grass       | a hard green shell  | live a hundred years
  crab     | animal | under a rock     | small fish      | two red claws       | walk sideways
  whale    | animal | in the ocean     | tiny shrimps    | a huge blue back    | sing under water
  shark    | fish   | in deep water    | other fish      | many white teeth    | smell food from far away
  dolphin  | animal | in the warm sea  | silver fish     | a round grey nose   | jump out of the water
  penguin  | bird   | on the ice       | cold fish       | a black coat        | slide on its belly
  seal     | animal | on a cold shore  | crabs           | a wet grey coat     | dive very deep
  lion     | animal | on the plain     | zebras          | a golden mane       | roar very loudly
  tiger    | animal | in tall grass    | wild pigs       | black stripes       | hunt alone
  elephant | animal | in the savanna   | fruit           | a long nose         | carry heavy logs
  monkey   | animal | in a palm tree   | bananas         | long thin arms      | swing from branch to branch
  camel    | animal | in hot sand      | dry plants      | a big hump          | walk for days without water
  bee      | insect | in a hive        | sweet nectar    | yellow stripes      | make honey
  ant      | insect | in a sand hill   | crumbs          | six tiny legs       | carry big leaves
  spider   | insect | in a web         | moths           | eight thin legs     | build a net
  butterfly | insect | in the meadow   | flower juice    | colourful wings     | fly without a sound`,
);

/** Its colour, its taste, where it grows, what people make of it. */
export const FOODS: readonly Thing[] = table(
  ["colour", "taste", "grows", "dish"],
  `
  apple      | fruit     | red         | sweet        | on a tree          | pie
  pear       | fruit     | light green | juicy        | in an orchard      | jam
  lemon      | fruit     | yellow      | sour         | in warm lands      | tea
  orange     | fruit     | bright orange | fresh      | on a sunny farm    | juice
  cherry     | fruit     | dark red    | very sweet   | on a tall tree     | cake
  grape      | fruit     | purple      | mild         | on a vine          | wine
  banana     | fruit     | golden      | soft         | on a palm          | pudding
  melon      | fruit     | pale green  | watery       | in hot fields      | ice cream
  strawberry | fruit     | bright red  | rich         | near the ground    | cream
  carrot     | vegetable | orange      | crisp        | under the ground   | soup
  potato     | vegetable | brown       | plain        | in dark soil       | chips
  tomato     | vegetable | deep red    | a bit sour   | in a glass house   | sauce
  onion      | vegetable | white       | hot          | in dry soil        | stew
  pumpkin    | vegetable | dark orange | warm         | in a big garden    | bread
  pea        | vegetable | green       | tender       | in a green pod     | salad
  cabbage    | vegetable | light blue  | bitter       | in cool fields     | rolls
  mushroom   | plant     | pale brown  | earthy       | in damp woods      | pasta
  olive      | fruit     | black       | salty        | on dry hills       | oil`,
);

/** What it is made of, what people use it for, where they keep it. */
export const TOOLS: readonly Thing[] = table(
  ["made", "use", "kept"],
  `
  hammer   | tool  | iron          | hit nails            | in a tool box
  saw      | tool  | steel         | cut wood             | on a hook
  needle   | tool  | thin steel    | sew clothes          | in a sewing kit
  broom    | tool  | straw         | sweep the floor      | behind the door
  bucket   | tool  | tin           | carry water          | by the well
  rope     | tool  | strong fibres | tie a boat           | in the shed
  ladder   | tool  | wood          | reach the roof       | against the wall
  lamp     | thing | brass         | light a room         | on the table
  candle   | thing | wax           | see at night         | in a drawer
  clock    | thing | small wheels  | tell the time        | above the fire
  key      | thing | metal         | open a lock          | in a pocket
  mirror   | thing | glass         | look at your face    | on the wall
  pillow   | thing | feathers      | rest your head       | on the bed
  blanket  | thing | wool          | stay warm            | in a chest
  umbrella | thing | cloth         | stay dry             | near the entrance
  knife    | tool  | sharp metal   | slice bread          | in the kitchen
  spoon    | tool  | silver        | eat soup             | in the cupboard
  kettle   | thing | copper        | boil water           | on the stove
  pencil   | thing | soft wood     | draw a picture       | in a school bag
  map      | thing | paper         | find the way         | in a leather bag
  drum     | toy   | thin skin     | play a rhythm        | in the music room
  kite     | toy   | light paper   | play in the wind     | in the attic`,
);

/** What the worker does, where, and with what. */
export const JOBS: readonly Thing[] = table(
  ["task", "place", "needs"],
  `
  baker       | worker | bakes bread        | in a bakery          | a hot oven
  farmer      | worker | grows wheat        | in the fields        | a tractor
  doctor      | worker | helps sick people  | in a hospital        | medicine
  teacher     | worker | teaches children   | in a school          | a blackboard
  sailor      | worker | steers a ship      | at sea               | a compass
  fisherman   | worker | catches fish       | on a lake            | a net
  tailor      | worker | makes clothes      | in a small shop      | thread
  carpenter   | worker | builds tables      | in a workshop        | a sharp saw
  gardener    | worker | plants flowers     | in a park            | a spade
  cook        | worker | prepares meals     | in a restaurant      | a large pan
  pilot       | worker | flies planes       | at an airport        | clear skies
  painter     | worker | paints pictures    | in a bright studio   | a brush
  writer      | worker | tells stories      | at a desk            | a pen
  miner       | worker | digs for coal      | deep under the earth | a strong light
  postman     | worker | brings letters     | in every street      | a bicycle
  singer      | worker | sings songs        | on a stage           | a clear voice
  builder     | worker | builds houses      | on a building site   | bricks
  shepherd    | worker | watches the sheep  | on green hills       | a good dog`,
);

/** Where it moves, what it carries, how it goes. */
export const VEHICLES: readonly Thing[] = table(
  ["moves", "carries", "pace"],
  `
  train     | vehicle | on rails         | many people     | very quickly
  bus       | vehicle | on the road      | school children | steadily
  ship      | vehicle | on the sea       | heavy boxes     | slowly
  plane     | vehicle | in the air       | travellers      | faster than a bird
  bicycle   | vehicle | on a narrow path | one person      | quietly
  truck     | vehicle | on the highway   | stones          | with a loud noise
  boat      | vehicle | on the river     | fishermen       | gently
  sled      | vehicle | on snow          | happy children  | down the hill
  balloon   | vehicle | above the clouds | a basket        | with the wind
  tractor   | vehicle | over the fields  | straw           | all day long
  submarine | vehicle | under the sea    | a brave crew    | in silence
  rocket    | vehicle | into space       | a small machine | with fire`,
);

/** Everything, in one list. */
export const WORLD: readonly Thing[] = [...ANIMALS, ...FOODS, ...TOOLS, ...JOBS, ...VEHICLES];

/** The article and the name: "an owl". */
export function aThing(name: string): string {
  return `${/^[aeiou]/.test(name) ? "an" : "a"} ${name}`;
}

/** First letter large. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
