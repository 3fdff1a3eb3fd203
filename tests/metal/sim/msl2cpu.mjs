// Turns an unmodified .metal file into a C++ translation unit that runs on a CPU:
//   node msl2cpu.mjs in.metal out.cpp [clang++]
// It preprocesses the file, reads the kernels' signatures, rewrites the two things a C++ compiler cannot express
// (threadgroup variables in a kernel, function constants), and appends one launch stub for each kernel.
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { tokenize } from "./tokens.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const shim = join(here, "msl");

export function preprocess(file, clang = "clang++-19", extra = (process.env.MSL_PP ?? "").split(" ").filter(Boolean)) {
  return execFileSync(clang, [
    "-E",
    "-x",
    "c++",
    "-std=c++17",
    "-undef",
    "-D__METAL_VERSION__=310",
    "-D__METAL__=1",
    "-nostdinc",
    "-I",
    join(shim, "pp"),
    "-I",
    dirname(file),
    ...extra,
    file,
  ], { encoding: "utf8", maxBuffer: 1 << 28 });
}

const OPEN = { "(": ")", "{": "}", "[": "]", "[[": "]]" };
export class Unit {
  constructor(text) {
    this.toks = tokenize(text);
    this.sig = this.toks.map((_, i) => i).filter((i) => this.toks[i].k !== "ws" && this.toks[i].k !== "line");
    this.kernels = []; // {name, expr, params:[{text,name,attrs:{}}], body:[from,to]|null, line}
    this.fconsts = []; // {name, index, type}
    this.tgvars = []; // {kernel, name, line, text}
    this.kattrs = []; // attribute ranges in the kernels' signatures: read, then dropped
    this.parse();
  }
  s(p) {
    return p < this.sig.length ? this.toks[this.sig[p]].s : "";
  }
  tok(p) {
    return this.toks[this.sig[p]];
  }
  close(p) { // position of the bracket that closes the one at p
    const stack = [];
    for (let q = p; q < this.sig.length; q++) {
      const s = this.s(q);
      if (OPEN[s]) stack.push(OPEN[s]);
      else if (s === stack.at(-1)) {
        stack.pop();
        if (!stack.length) return q;
      } else if (s === "]]" && stack.at(-1) === "]") { // a[b[0]]: two separate brackets
        stack.pop();
        if (stack.at(-1) === "]") stack.pop();
        if (!stack.length) return q;
      }
    }
    throw new Error(`unbalanced ${this.s(p)} at line ${this.tok(p).line}`);
  }
  text(a, b) {
    return this.toks.slice(this.sig[a], b < this.sig.length ? this.sig[b] : undefined).filter((t) => t.k !== "line")
      .map((t) => t.s).join("");
  }
  // comma-separated pieces of [a, b) at bracket depth 0 (template angle brackets count)
  pieces(a, b) {
    const out = [];
    let from = a, angle = 0;
    for (let p = a; p < b; p++) {
      const s = this.s(p);
      if (OPEN[s]) {
        p = this.close(p);
        continue;
      }
      if (s === "<") angle++;
      else if (s === ">") angle--;
      else if (s === ">>") angle -= 2;
      else if (s === "," && angle <= 0) {
        out.push([from, p]);
        from = p + 1;
      }
    }
    if (from < b) out.push([from, b]);
    return out;
  }
  attrs(a, b) { // [[x(1), y]] within [a, b) -> {x: "1", y: true}
    const r = {};
    for (let p = a; p < b; p++) {
      if (this.s(p) === "[[") {
        const e = this.close(p);
        for (const [x] of this.pieces(p + 1, e)) {
          r[this.s(x)] = this.s(x + 1) === "(" ? this.text(x + 2, this.close(x + 1)) : true;
        }
        p = e;
      }
    }
    return r;
  }
  parse() {
    const templates = new Map();
    let pendingTemplate = null;
    for (let p = 0; p < this.sig.length; p++) {
      const s = this.s(p);
      if (s === "template" && this.s(p + 1) === "<") {
        let d = 0, q = p + 1;
        do {
          if (this.s(q) === "<") d++;
          if (this.s(q) === ">") d--;
          if (this.s(q) === ">>") d -= 2;
          q++;
        } while (d > 0);
        pendingTemplate = [p, q];
        p = q - 1;
        continue;
      }
      if (s === "template" && this.s(p + 1) === "[[") { // explicit instantiation with a host_name
        const e = this.close(p + 1), host = this.attrs(p + 1, e + 1).host_name;
        let q = e + 1;
        while (this.s(q) !== ";") q = OPEN[this.s(q)] ? this.close(q) + 1 : q + 1;
        if (host) {
          this.kernels.push({
            name: [...host.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map((m) => m[1]).join(""),
            inst: this.text(e + 1, q),
            at: [p, q],
            line: this.tok(p).line,
            params: null,
            templates,
          });
        }
        p = q;
        continue;
      }
      if (s === "kernel" || (s === "[[" && this.attrs(p, this.close(p) + 1).kernel)) {
        const head = {}; // [[kernel, max_total_threads_per_threadgroup(n)]] and such
        let q = s === "kernel" ? p + 1 : p;
        for (; this.s(q) === "[["; q = this.close(q) + 1) Object.assign(head, this.attrs(q, this.close(q) + 1));
        if (this.s(q) !== "void") continue;
        const name = this.s(q + 1), op = q + 2;
        if (this.s(op) !== "(") continue;
        const cp = this.close(op);
        for (let x = p; x < cp; x++) {
          if (this.s(x) === "[[") {
            this.kattrs.push([x, this.close(x)]);
            x = this.close(x);
          }
        }
        const params = this.pieces(op + 1, cp).map(([a, b]) => {
          let e = a;
          while (e < b && this.s(e) !== "[[") e++;
          return {
            text: this.text(a, b).trim(),
            type: this.text(a, e - 1).trim(),
            name: this.s(e - 1),
            attrs: this.attrs(a, b),
            line: this.tok(a).line,
          };
        });
        // MSL gives device/constant parameters without [[buffer(n)]] the next free index, in order
        const KNOWN =
          /^(buffer|threadgroup|thread_|threads_|threadgroup_|threadgroups_|simdgroup|simdgroups|dispatch_|texture|sampler|stage_in|grid_|quadgroup)/;
        const used = new Set(params.map((q) => q.attrs.buffer).filter((x) => x !== undefined).map(Number));
        for (const q of params) {
          if (Object.keys(q.attrs).some((a) => KNOWN.test(a)) || !/\b(device|constant)\b/.test(q.type)) continue;
          let i = 0;
          while (used.has(i)) i++;
          used.add(i);
          q.attrs.buffer = String(i);
          q.implicit = true;
        }
        let body = null;
        if (this.s(cp + 1) === "{") {
          body = [cp + 1, this.close(cp + 1)];
          this.tgdecls(name, body);
        }
        const k = { name, expr: name, head, params, body, line: this.tok(p).line };
        if (pendingTemplate) templates.set(name, k);
        else if (body) this.kernels.push(k);
        p = body ? body[1] : cp;
        pendingTemplate = null;
        continue;
      }
      if (s === "[[") { // on a helper's parameter: [[threadgroup(0)]] would meet the macro of that name
        const e = this.close(p), a = this.attrs(p, e + 1);
        if ("threadgroup" in a || "buffer" in a) this.kattrs.push([p, e]);
      }
      if (s === "constant") {
        let e = p;
        while (e < this.sig.length && ![";", "=", "{", "(", ")", ","].includes(this.s(e)) && this.s(e) !== "[[") e++;
        if (this.s(e) === "[[") {
          const c = this.close(e), at = this.attrs(e, c + 1);
          if (at.function_constant !== undefined && this.s(c + 1) === ";") {
            this.fconsts.push({
              name: this.s(e - 1),
              type: this.text(p + 1, e - 1).trim(),
              index: +at.function_constant,
              at: [p, c + 1],
              line: this.tok(p).line,
            });
          }
        }
      }
      if (s === "{") pendingTemplate = null;
      if (s === ";" || s === "}") pendingTemplate = null;
    }
    for (const k of this.kernels) {
      if (k.inst) {
        const m = /(?:decltype\s*\(\s*)?(?:kernel\s+|\[\[kernel\]\]\s*)?(?:void\s+)?(\w+)\s*(<[^()]*>)/s.exec(k.inst);
        const t = m && templates.get(m[1]);
        if (!t) throw new Error(`${k.name}: no template kernel found for ${k.inst}`);
        k.expr = m[1] + m[2];
        k.params = t.params;
        k.body = t.body;
        k.head = t.head;
      }
    }
  }
  tgdecls(kernel, [a, b]) { // statement-level `threadgroup T x[N], y;` (not pointers or references)
    for (let p = a + 1; p < b; p++) {
      if (this.s(p) !== "threadgroup" || ![";", "{", "}"].includes(this.s(p - 1))) continue;
      let e = p;
      while (this.s(e) !== ";") e = OPEN[this.s(e)] ? this.close(e) + 1 : e + 1;
      let angle = 0, q = p + 1, ptr = false;
      for (; q < e; q++) { // the end of the type: the identifier followed by [ , or ;
        const s = this.s(q);
        if (s === "<") angle++;
        if (s === ">") angle--;
        if (angle === 0 && (s === "*" || s === "&" || s === "=")) {
          ptr = true;
          break;
        }
        if (angle === 0 && q > p + 1 && this.tok(q).k === "id" && ["[", ",", ";"].includes(this.s(q + 1))) break;
      }
      if (ptr) continue;
      const type = this.text(p + 1, q).trim();
      const vars = this.pieces(q, e).map(([x, y]) => ({ name: this.s(x), dims: this.text(x + 1, y).trim() }));
      this.tgvars.push({ kernel, at: [p, e], type, vars, line: this.tok(p).line });
      p = e;
    }
  }
  // the C++ translation unit
  emit() {
    const edit = new Map(); // token index -> replacement; '' deletes
    const put = (a, b, s) => {
      for (let i = this.sig[a]; i <= this.sig[b]; i++) if (this.toks[i].k !== "line") edit.set(i, "");
      edit.set(this.sig[a], s);
    };
    let id = 0;
    for (const t of this.tgvars) {
      put(
        t.at[0],
        t.at[1],
        t.vars.map((v) => {
          const n = id++;
          return `typedef ${t.type} __tg${n} ${v.dims}; __tg${n} MSL_THREADGROUP &${v.name} = *(__tg${n} MSL_THREADGROUP *)msl_tg_slot(${n}, sizeof(__tg${n}));`;
        }).join(" "),
      );
    }
    const last = new Map();
    let seen = 0;
    for (const t of this.tgvars) {
      const e = last.get(t.kernel) ?? { ids: [] };
      for (const _ of t.vars) e.ids.push(seen++);
      e.t = t;
      last.set(t.kernel, e);
    }
    for (const e of last.values()) {
      edit.set(
        this.sig[e.t.at[0]],
        edit.get(this.sig[e.t.at[0]]) +
          ` static_assert(${
            e.ids.map((n) => `sizeof(__tg${n})`).join(" + ")
          } <= 32768, "threadgroup memory over 32 KiB");`,
      );
    }
    for (let p = 0; p + 1 < this.sig.length; p++) { // vec<T, 4>(...) is a construction, which C++ has not for its vectors
      if (this.s(p) !== "vec" || this.s(p + 1) !== "<") continue;
      let q = p + 2;
      while (![">", ";", "{", "("].includes(this.s(q))) q++;
      if (this.s(q) !== ">" || this.s(q + 1) !== "(") continue;
      edit.set(this.sig[p], "metal::__mk<vec");
      edit.set(this.sig[q], ">>");
    }
    for (const f of this.fconsts) {
      put(f.at[0], f.at[1], `static ${f.type} ${f.name}; static unsigned char __defined_${f.name};`);
    }
    for (const k of this.kernels) if (k.inst) put(k.at[0], k.at[1], "");
    for (const [a, b] of this.kattrs) put(a, b, "");
    let out = '#include "msl/msl.h"\n#define is_function_constant_defined(n) (__defined_##n)\n';
    this.toks.forEach((t, i) => {
      out += edit.has(i) ? edit.get(i) : t.s;
    });
    out +=
      '\n# 1 "<launch stubs>"\nalignas(16) [[maybe_unused]] static char __unbound[4096];\n#undef device\n#undef constant\n#undef threadgroup\n#undef thread\n#undef kernel\n';
    out +=
      "template <typename F, unsigned I> struct __param; template <typename R, typename A, typename... B, unsigned I> struct __param<R (*)(A, B...), I> : __param<R (*)(B...), I - 1> {};\n" +
      "template <typename R, typename A, typename... B> struct __param<R (*)(A, B...), 0> { typedef A type; };\n";
    const IDS = {
      thread_position_in_grid: "tpig",
      thread_position_in_threadgroup: "tpitg",
      threadgroup_position_in_grid: "tgpig",
      threads_per_threadgroup: "tptg",
      threadgroups_per_grid: "tgpg",
      threads_per_grid: "tpg",
      dispatch_threads_per_threadgroup: "dtptg",
    };
    const SCALARS = {
      thread_index_in_threadgroup: "titg",
      thread_index_in_simdgroup: "lane",
      simdgroup_index_in_threadgroup: "sg",
      simdgroups_per_threadgroup: "nsg",
      threads_per_simdgroup: "tpsg",
    };
    const rows = [];
    this.kernels.forEach((k, n) => {
      const F = `__F${n}`, args = [], info = [];
      k.params.forEach((p, i) => {
        const P = `typename __param<${F}, ${i}>::type`.replace("typename ", "");
        const a = Object.keys(p.attrs);
        const key = a.find((x) => x in IDS || x in SCALARS || x === "buffer");
        if (!key) throw new Error(`${k.name}: parameter '${p.text}' has no binding this shim knows`);
        if (key === "buffer") {
          const slot = `L->buf[${p.attrs.buffer}]`; // an optional T& may be unbound, but C++ assumes that it can be read
          args.push(
            `metal::__ref<${P}>::get(${p.attrs.function_constant ? `${slot} ? ${slot} : (void *)__unbound` : slot})`,
          );
          if (!p.attrs.function_constant) {
            info.push(
              `{metal::__ref<${P}>::size ? 'c' : 'b', ${p.attrs.buffer}, "${p.name}", metal::__ref<${P}>::size, metal::__ref<${P}>::align}`,
            );
          }
        } else if (key in IDS) args.push(`metal::__id3<__strip_const<${P}>::type>(I->${IDS[key]})`);
        else args.push(`(${P})I->${SCALARS[key]}`);
      });
      out +=
        `typedef decltype(&${k.expr}) ${F};\nstatic void __stub${n}(const MslLaunch *L, const MslIds *I) { ${k.expr}(${
          args.join(", ")
        }); }\n` +
        (info.length ? `static const MslArg __args${n}[] = {${info.join(", ")}};\n` : "");
      const max = this.maxThreads(k);
      rows.push(`{"${k.name}", __stub${n}, ${info.length}, ${info.length ? `__args${n}` : "nullptr"}, ${max}}`);
    });
    out = out.replace(
      "template <typename F, unsigned I> struct __param;",
      "template <typename T> struct __strip_const { typedef T type; }; template <typename T> struct __strip_const<const T> { typedef T type; };\n$&",
    );
    out += `static const MslKernel __kernels[] = {${rows.join(",\n  ")}};\n`;
    if (this.fconsts.length) {
      out += `static const MslFConst __fconsts[] = {${
        this.fconsts.map((f) => `{${f.index}, "${f.name}", &${f.name}, &__defined_${f.name}, sizeof(${f.name})}`).join(
          ", ",
        )
      }};\n`;
    }
    out +=
      `extern "C" __attribute__((visibility("default"))) extern const MslModule msl_module = {${rows.length}, __kernels, ${this.fconsts.length}, ${
        this.fconsts.length ? "__fconsts" : "nullptr"
      }};\n`;
    return out;
  }
  maxThreads(k) {
    const n = Number(k.head?.max_total_threads_per_threadgroup);
    return n > 0 ? n : 1024;
  } // an expression: not known here
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , input, output, clang] = process.argv;
  const u = new Unit(preprocess(input, clang));
  writeFileSync(output, u.emit());
}
