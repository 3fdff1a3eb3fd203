/**
 * The template library's interpreter, where it does otherwise than Python's jinja2 (3.1), by which chat templates are written:
 * how values are printed and compared, texts marked as safe, and filters and methods that templates use and the library lacks.
 * What neither has stays an error. tests/tokenizer/jinja_test.ts holds it against Python.
 * @module
 */
import { type Environment, Interpreter } from "@huggingface/jinja";
import {
  equal,
  Float,
  isList,
  isMapping,
  isText,
  isUndefined,
  List,
  mapping,
  str,
  Text,
  Truth,
  tuple,
  Undefined,
  type Value,
  Whole,
} from "./python_values.ts";

/** A node of the library's tree. */
interface Node {
  readonly type: string;
  // deno-lint-ignore no-explicit-any
  readonly [key: string]: any;
}

/** What the library's interpreter has, its private methods too. */
interface Internals {
  evaluate(node: Node | undefined, env: Environment): Value;
  evaluateArguments(args: readonly Node[], env: Environment): [Value[], Map<string, Value>];
  evaluateBinaryExpression(node: Node, env: Environment): Value;
  evaluateCallExpression(node: Node, env: Environment): Value;
  evaluateTestExpression(node: Node, env: Environment): Value;
  applyFilter(operand: Value, filter: Node, env: Environment): Value;
  run(program: unknown): Value;
}
const Base = Interpreter as unknown as new (env: Environment) => Internals;

/** Nodes that print nothing of their own value. */
const SILENT = new Set(["Set", "Macro", "Comment", "Break", "Continue"]);

/** A node whose value is known, so that nothing is evaluated twice. */
const held = (value: Value): Node => ({ type: "Held", value });

/** Texts that `safe` or `escape` marked: what is joined to them is escaped (markupsafe.Markup). */
const safe = new WeakSet<Value>();
const marked = (text: string): Value => {
  const value = new Text(text);
  safe.add(value);
  return value;
};
const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;" };
const escaped = (v: Value): string => safe.has(v) ? v.value : str(v).replace(/[&<>'"]/g, (c) => ENTITIES[c]!);

/** See the module. */
export class PythonInterpreter extends Base {
  override evaluate(node: Node | undefined, env: Environment): Value {
    if (node?.type === "Held") return node.value;
    if (node?.type === "ObjectLiteral" && [...node.value.keys()].some((key: Node) => key.type !== "StringLiteral")) {
      return mapping([...node.value].map(([k, v]: Node[]) => [this.evaluate(k, env), this.evaluate(v, env)]));
    }
    if (node?.type === "TupleLiteral") return tuple(node.value.map((item: Node) => this.evaluate(item, env)));
    return super.evaluate(node, env);
  }

  evaluateBlock(nodes: readonly Node[], env: Environment): Value {
    let out = "";
    for (const node of nodes) {
      const value = this.evaluate(node, env);
      if (!SILENT.has(node.type)) out += str(value);
    }
    return new Text(out);
  }

  override evaluateBinaryExpression(node: Node, env: Environment): Value {
    const operator: string = node.operator.value;
    if (operator === "and" || operator === "or") return super.evaluateBinaryExpression(node, env);
    const left = this.evaluate(node.left, env), right = this.evaluate(node.right, env);
    return binary(operator, left, right) ??
      super.evaluateBinaryExpression({ ...node, left: held(left), right: held(right) }, env);
  }

  override evaluateTestExpression(node: Node, env: Environment): Value {
    const test = TESTS[node.test.value];
    if (!test) return super.evaluateTestExpression(node, env);
    return new Truth(test(this.evaluate(node.operand, env)) !== node.negate);
  }

  override evaluateCallExpression(node: Node, env: Environment): Value {
    const { callee } = node, name = callee.type === "MemberExpression" && !callee.computed ? callee.property.value : "";
    const method = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined;
    if (!method && name !== "items") return super.evaluateCallExpression(node, env);
    const object = this.evaluate(callee.object, env);
    if (name === "items" && isMapping(object)) return itemsOf(object);
    if (!isText(object) || !method) {
      return super.evaluateCallExpression({ ...node, callee: { ...callee, object: held(object) } }, env);
    }
    const [args, named] = this.evaluateArguments(node.args, env);
    return method(object.value, args, named);
  }

  override applyFilter(operand: Value, filter: Node, env: Environment): Value {
    const call = filter.type === "CallExpression", name: string = call ? filter.callee.value : filter.value;
    const [args, named] = call && OWN.has(name) ? this.evaluateArguments(filter.args, env) : [[], new Map()];
    const [first] = args;
    // As in jinja2.filters, nothing is an empty list to these.
    if (PICKING.has(name) && (isUndefined(operand) || operand.type === "NullValue")) return new List([]);
    switch (name) {
      case "map": {
        if (args.length !== 1 || named.size > 0 || !isList(operand)) break;
        const each = { type: "Identifier", value: str(first) };
        return new List(operand.value.map((item: Value) => this.applyFilter(item, each, env)));
      }
      case "select":
      case "reject": {
        if (!isList(operand)) break;
        const test = first ? testNamed(env, str(first)) : truth, wanted = name === "select";
        return new List(operand.value.filter((item: Value) => test(item, args[1]) === wanted));
      }
      case "join":
        if (!isList(operand) || args.length > 1 || named.size > 0) break;
        return new Text(operand.value.map(str).join(first ? str(first) : ""));
      case "indent":
        if (isText(operand)) return new Text(indented(operand.value, args, named));
        break;
      case "tojson":
        if (operand.type === "FloatValue") return new Text(str(operand));
        if (isUndefined(operand)) throw new Error("it writes what is undefined as JSON");
    }
    return (call ? undefined : plainFilter(name, operand)) ?? super.applyFilter(operand, filter, env);
  }
}

const PICKING = new Set(["map", "select", "reject", "selectattr", "rejectattr"]);

/** Filters whose arguments are looked at here. */
const OWN = new Set(["map", "select", "reject", "join", "indent"]);

type Test = (value: Value, argument?: Value) => boolean;
/** Tests of which the library has another notion. */
const TESTS: Readonly<Record<string, Test>> = {
  number: (v) => ["IntegerValue", "FloatValue", "BooleanValue"].includes(v.type),
  float: (v) => v.type === "FloatValue",
  iterable: (v) => isText(v) || isList(v) || isMapping(v) || isUndefined(v),
};

// deno-lint-ignore no-explicit-any
const truth: Test = (value) => (value as any).__bool__().value;

function testNamed(env: Environment, name: string): Test {
  const test = (Object.hasOwn(TESTS, name) ? TESTS[name] : env.tests.get(name)) as Test | undefined;
  if (!test) throw new Error(`Unknown test: ${name}`);
  return test;
}

/** What Python does otherwise than the library; nothing where they agree. */
function binary(operator: string, left: Value, right: Value): Value | undefined {
  const isNumber = (v: Value) => v.type === "IntegerValue" || v.type === "FloatValue";
  const count = (a: Value, b: Value) => (isText(a) || isList(a)) && b.type === "IntegerValue";
  switch (operator) {
    case "==":
      return new Truth(equal(left, right));
    case "!=":
      return new Truth(!equal(left, right));
    case "~":
      // Without autoescape Python joins these as plain texts, where + goes by markupsafe.
      return new Text(str(left) + str(right));
    case "+":
      if (!isText(left) && !isText(right)) return;
      if (!isText(left) || !isText(right)) {
        throw new Error(`it adds a text to ${isText(left) ? right.type : left.type}`);
      }
      if (safe.has(left) || safe.has(right)) return marked(escaped(left) + escaped(right));
      return new Text(left.value + right.value);
    case "*": {
      const [many, times] = count(left, right) ? [left, right.value] : count(right, left) ? [right, left.value] : [];
      if (!many) return;
      const n = Math.max(0, times);
      return isText(many) ? new Text(many.value.repeat(n)) : new List(Array(n).fill(many.value).flat());
    }
    case "%": {
      if (!isNumber(left) || !isNumber(right) || right.value === 0) return;
      const rest = left.value % right.value,
        value = rest !== 0 && rest < 0 !== right.value < 0 ? rest + right.value : rest;
      return left.type === "FloatValue" || right.type === "FloatValue" ? new Float(value) : new Whole(value);
    }
    case "in":
    case "not in": {
      if (!isList(right)) return;
      return new Truth(right.value.some((item: Value) => equal(item, left)) === (operator === "in"));
    }
  }
}

/** Filters without arguments; nothing where the library does the same. */
function plainFilter(name: string, operand: Value): Value | undefined {
  const items: Value[] = isList(operand) ? operand.value : [];
  const best = (better: (a: number, b: number) => boolean) =>
    items.length ? items.reduce((a, b) => better(b.value, a.value) ? b : a) : new Undefined(undefined);
  switch (name) {
    case "string":
      return safe.has(operand) ? operand : new Text(str(operand));
    case "safe":
      return marked(str(operand));
    case "e":
    case "escape":
      return marked(escaped(operand));
    case "trim":
      return new Text(stripped(str(operand)));
    case "length":
    case "count":
      if (isText(operand)) return new Whole([...operand.value].length);
      return isUndefined(operand) ? new Whole(0) : undefined;
    case "title":
      // jinja2.filters.do_title
      return new Text(str(operand).split(/([-\s({[<]+)/).map(capitalized).join(""));
    case "capitalize":
      return new Text(capitalized(str(operand)));
    case "list":
      if (isText(operand)) return new List([...operand.value].map((c) => new Text(c)));
      return isMapping(operand) ? new List([...operand.value.keys()].map((k) => new Text(k))) : undefined;
    case "first":
      return isList(operand) ? items[0] ?? new Undefined(undefined) : undefined;
    case "last":
      return isList(operand) ? items.at(-1) ?? new Undefined(undefined) : undefined;
    case "items":
      return isMapping(operand) ? itemsOf(operand) : undefined;
    case "dictsort":
      return isMapping(operand) ? new List(itemsOf(operand).value.toSorted(byKey)) : undefined;
    case "min":
      return isList(operand) ? best((a, b) => a < b) : undefined;
    case "max":
      return isList(operand) ? best((a, b) => a > b) : undefined;
    case "sum":
      return isList(operand) ? new Whole(items.reduce((n, v) => n + v.value, 0)) : undefined;
  }
}

/** The pairs of a mapping, as tuples. */
function itemsOf(mapping: Value): Value {
  const { items } = mapping as unknown as { items(): Value };
  return new List(items.call(mapping).value.map((pair: Value) => tuple(pair.value)));
}

/** By the first of a pair; texts whatever their case. */
function byKey(a: Value, b: Value): number {
  const [x, y] = [a, b].map(({ value: [key] }) => isText(key) ? key.value.toLowerCase() : key.value);
  return x < y ? -1 : Number(x > y);
}

/** What Python's str.strip() takes for white space. */
// deno-lint-ignore no-control-regex
const SPACES = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** A text without what stands at its ends: white space, or any of the characters given. */
function stripped(text: string, characters?: Value, left = true, right = true): string {
  const given = characters && characters.type !== "NullValue" ? new Set(str(characters)) : null;
  const isOut = (c: string) => given ? given.has(c) : SPACES.test(c), all = [...text];
  let from = 0, to = all.length;
  while (left && from < to && isOut(all[from]!)) from++;
  while (right && to > from && isOut(all[to - 1]!)) to--;
  return all.slice(from, to).join("");
}

/** jinja2.filters.do_indent */
function indented(text: string, args: readonly Value[], named: ReadonlyMap<string, Value>): string {
  const [width, first, blank] = ["width", "first", "blank"].map((name, i) => args[i] ?? named.get(name));
  const by = width === undefined ? "    " : isText(width) ? width.value : " ".repeat(width.value);
  const lines = splitLines(`${text}\n`);
  const out = lines.map((line, i) => i === 0 || (line === "" && !blank?.value) ? line : by + line).join("\n");
  return first?.value ? by + out : out;
}

/** Python's str.splitlines(). */
function splitLines(text: string): string[] {
  // deno-lint-ignore no-control-regex
  const lines = text.split(/\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

const capitalized = (text: string): string => {
  const [first = "", ...rest] = text;
  return first.toUpperCase() + rest.join("").toLowerCase();
};

type Method = (text: string, args: readonly Value[], named: ReadonlyMap<string, Value>) => Value;
const count = (text: string, part: string): number => part === "" ? [...text].length + 1 : text.split(part).length - 1;

/** Methods of texts that the library lacks. */
const METHODS: Readonly<Record<string, Method>> = {
  find: (text, [part]) => new Whole(text.indexOf(str(part!))),
  count: (text, [part]) => new Whole(count(text, str(part!))),
  isdigit: (text) => new Truth(/^\p{Nd}+$/u.test(text)),
  join: (text, [list]) => new Text(list!.value.map(str).join(text)),
  strip: (text, [chars]) => new Text(stripped(text, chars)),
  lstrip: (text, [chars]) => new Text(stripped(text, chars, true, false)),
  rstrip: (text, [chars]) => new Text(stripped(text, chars, false, true)),
  capitalize: (text) => new Text(capitalized(text)),
  index: (text, [part]) => {
    const at = text.indexOf(str(part!));
    if (at < 0) throw new Error("substring not found");
    return new Whole(at);
  },
  splitlines: (text) => new List(splitLines(text).map((line) => new Text(line))),
  removeprefix: (text, [part]) => new Text(text.startsWith(str(part!)) ? text.slice(str(part!).length) : text),
  removesuffix: (text, [part]) => {
    const end = str(part!);
    return new Text(end !== "" && text.endsWith(end) ? text.slice(0, -end.length) : text);
  },
  format: (text, args, named) => {
    let next = 0;
    const filled = text.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (all, field?: string) => {
      if (field === undefined) return all[0]!;
      const value = field === "" ? args[next++] : /^\d+$/.test(field) ? args[Number(field)] : named.get(field);
      if (!value) throw new Error(`it formats a text with {${field}}, which is not given or not known here`);
      return str(value);
    });
    return new Text(filled);
  },
};
