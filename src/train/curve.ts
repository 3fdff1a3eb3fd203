/** The loss over the steps, drawn with braille dots for a terminal and as SVG for a file. @module */

/** A point: the step and its loss. */
export type Point = readonly [step: number, loss: number];

/** Dots of a braille cell from its top left, column by column: bits of U+2800. */
const DOTS = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]] as const;

/** Least and greatest, widened where they are equal. */
function range(values: readonly number[]): [number, number] {
  const low = Math.min(...values), high = Math.max(...values);
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

/**
 * The curve as lines of text, `width` by `height` characters and a scale at the left.
 * @param points at least one; what is not finite is left out
 */
export function drawCurve(points: readonly Point[], width = 64, height = 10): string[] {
  const shown = points.filter(([, y]) => Number.isFinite(y));
  if (shown.length === 0) return [];
  const [x0, x1] = range(shown.map((p) => p[0])), [y0, y1] = range(shown.map((p) => p[1]));
  const cells = Array.from({ length: height }, () => new Uint8Array(width));
  const column = (x: number) => Math.round((x - x0) / (x1 - x0) * (2 * width - 1));
  const row = (y: number) => Math.round((y1 - y) / (y1 - y0) * (4 * height - 1));
  const dot = (c: number, r: number) => cells[r >> 2][c >> 1] |= DOTS[c & 1][r & 3];
  let before: [number, number] | null = null;
  for (const [x, y] of shown) {
    const here: [number, number] = [column(x), row(y)];
    stroke(before ?? here, here, dot);
    before = here;
  }
  const label = (i: number) => i === 0 ? y1.toFixed(3) : i === height - 1 ? y0.toFixed(3) : "";
  const pad = Math.max(y1.toFixed(3).length, y0.toFixed(3).length);
  const body = cells.map((line, i) => {
    const text = Array.from(line, (bits) => String.fromCharCode(0x2800 + bits)).join("");
    return `${label(i).padStart(pad)} ┤${text}`;
  });
  const [left, right] = [String(shown[0][0]), String(shown[shown.length - 1][0])];
  return [...body, `${" ".repeat(pad + 2)}${left}${right.padStart(Math.max(1, width - left.length))}`];
}

/** A straight line of dots. */
function stroke([c0, r0]: [number, number], [c1, r1]: [number, number], dot: (c: number, r: number) => void): void {
  const steps = Math.max(Math.abs(c1 - c0), Math.abs(r1 - r0), 1);
  for (let i = 0; i <= steps; i++) {
    dot(Math.round(c0 + (c1 - c0) * i / steps), Math.round(r0 + (r1 - r0) * i / steps));
  }
}

/** The curve as an SVG document: training loss as a line, held-out loss as dots on a line. */
export function curveSvg(train: readonly Point[], held: readonly Point[], title: string): string {
  const all = [...train, ...held].filter(([, y]) => Number.isFinite(y));
  if (all.length === 0) all.push([0, 0]);
  const [x0, x1] = range(all.map((p) => p[0])), [y0, y1] = range(all.map((p) => p[1]));
  const [w, h, left, top] = [640, 320, 56, 32];
  const x = (v: number) => (left + (v - x0) / (x1 - x0) * (w - left - 16)).toFixed(1);
  const y = (v: number) => (top + (y1 - v) / (y1 - y0) * (h - top - 40)).toFixed(1);
  const path = (points: readonly Point[]) =>
    points.filter(([, v]) => Number.isFinite(v)).map(([a, b]) => `${x(a)},${y(b)}`).join(" ");
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((t) => y0 + (y1 - y0) * t);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${w} ${h}" font-family="sans-serif" font-size="12">`,
    `<rect width="${w}" height="${h}" fill="#fff"/>`,
    `<text x="${left}" y="20">${escapeXml(title)}</text>`,
    ...ticks.map((t) =>
      `<path d="M${left} ${y(t)}H${w - 16}" stroke="#ddd"/><text x="${left - 6}" y="${y(t)}" text-anchor="end">${
        t.toFixed(2)
      }</text>`
    ),
    `<text x="${left}" y="${h - 12}">${x0}</text><text x="${w - 16}" y="${h - 12}" text-anchor="end">step ${x1}</text>`,
    `<polyline fill="none" stroke="#1f6feb" stroke-width="1.5" points="${path(train)}"/>`,
    held.length > 0
      ? `<polyline fill="none" stroke="#d1242f" stroke-width="1.5" stroke-dasharray="4 3" points="${path(held)}"/>`
      : "",
    ...held.map(([a, b]) => `<circle cx="${x(a)}" cy="${y(b)}" r="3" fill="#d1242f"/>`),
    `<text x="${w - 16}" y="20" text-anchor="end"><tspan fill="#1f6feb">train</tspan>${
      held.length > 0 ? ' <tspan fill="#d1242f">held out</tspan>' : ""
    }</text>`,
    "</svg>",
    "",
  ].filter((l, i, a) => l !== "" || i === a.length - 1).join("\n");
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
