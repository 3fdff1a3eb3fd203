// Tokens of preprocessed source: {k: "line" | "ws" | "str" | "id" | "num" | "op", s, line, file}.
const RE =
  /(#[^\n]*\n)|(\s+)|("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|([A-Za-z_]\w*)|(\d(?:[\w.]|[eEpP][+-])*|\.\d(?:[\w.]|[eEpP][+-])*)|(\[\[|\]\]|::|->|<<=?|>=|<=|==|!=|&&|\|\||\+\+|--|[-+*\/%&|^]=|.)/gsy;
export function tokenize(text) {
  const out = [];
  let line = 1, file = "?";
  RE.lastIndex = 0;
  for (let m; (m = RE.exec(text));) {
    const k = m[1] !== undefined
      ? "line"
      : m[2] !== undefined
      ? "ws"
      : m[3] !== undefined
      ? "str"
      : m[4] !== undefined
      ? "id"
      : m[5] !== undefined
      ? "num"
      : "op";
    out.push({ k, s: m[0], line, file });
    if (k === "line") {
      const d = /^#(?:line)? (\d+)(?: "([^"]*)")?/.exec(m[0]);
      if (d) {
        line = +d[1];
        if (d[2]) file = d[2];
      } else line++;
    } else for (const c of m[0]) if (c === "\n") line++;
  }
  return out;
}
