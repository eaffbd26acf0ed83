// Elements and small drawings. Every text goes in as a text, never as markup.
function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") Object.entries(value).forEach(([name, act]) => made.addEventListener(name, act));
    else if (key === "style") Object.entries(value).forEach(([name, each]) => made.style.setProperty(name, each));
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return made;
}

function draw(tag, given = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(given).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children.flat().filter((each) => each !== null));
  return made;
}

const INKS = ["#3b75af", "#e07b39", "#3f9b4f", "#c2453d", "#8a63b8", "#a0725a", "#d06ba6", "#7b8794", "#a39a2a", "#2a9fb0"];
const ink = (index) => INKS[index % INKS.length];
const swatch = (index) => el("i", { class: "swatch", style: { background: ink(index) } });

// Round numbers from low to high, about so many.
function ticks(low, high, about = 5) {
  const span = high - low || Math.abs(high) || 1, raw = span / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(+at.toPrecision(10));
  return found;
}

// Lines of [label, marks]; marks are drawn by `mark(x, y, entry)` on a shared axis.
function chart(lines, low, high, mark, { width = 640, unit = "", zero = false } = {}) {
  const longest = Math.max(0, ...lines.map((each) => each.name.length));
  const label = Math.min(Math.max(120, longest * LETTER + 14), width * 0.42);
  const line = 26, top = 6, bottom = top + lines.length * line, right = width - 70;
  const x = (value) => label + ((value - low) / (high - low || 1)) * (right - label);
  const axis = ticks(low, high).map((at) => [
    draw("line", { x1: x(at), x2: x(at), y1: top, y2: bottom, class: zero && at === 0 ? "zero" : "grid" }),
    draw("text", { x: x(at), y: bottom + 16, class: "axis", "text-anchor": "middle" }, String(at)),
  ]);
  const body = lines.map((entry, index) => {
    const y = top + index * line + line / 2;
    const name = draw("text", { x: label - 10, y: y + 4, "text-anchor": "end" }, shortened(entry.name, (label - 14) / LETTER));
    return draw("g", {}, draw("title", {}, entry.title), name, ...mark(x, y, entry));
  });
  const high_ = bottom + 36;
  const shown = draw("svg", { viewBox: `0 0 ${width} ${high_}`, width, height: high_, role: "img", class: "chart" });
  shown.append(...axis.flat(), ...body, draw("text", { x: right, y: bottom + 32, class: "axis", "text-anchor": "end" }, unit));
  return shown;
}

// A name that may break where its parts end.
const breakable = (name) => name.split(/(?=[[])|(?<=[._])/).flatMap((part, k) => (k ? [el("wbr"), part] : [part]));

const LETTER = 7.6;  // pixels of a usual one in a drawing

// Long names are cut in the middle: those of a sweep begin alike and differ at their ends.
function shortened(text, most) {
  const half = Math.max(1, (most - 1) / 2);
  return text.length > most ? `${text.slice(0, Math.floor(half))}…${text.slice(-Math.ceil(half))}` : text;
}

function whiskers(x, y, { at, range, index, faint }) {
  const color = ink(index), shown = [];
  if (range) shown.push(draw("line", { x1: x(range[0]), x2: x(range[1]), y1: y, y2: y, stroke: color, "stroke-width": 3, opacity: faint ? 0.45 : 0.9, "stroke-linecap": "round" }));
  return [...shown, draw("circle", { cx: x(at), cy: y, r: 5, fill: color, opacity: faint ? 0.6 : 1 })];
}

// Points with intervals over two numbers.
function scatter(points, { across, up, width = 640, height = 300 }) {
  const box = { left: 62, right: width - 190, top: 18, bottom: height - 42 };
  const reach = (values, pad) => {
    const low = Math.min(...values), high = Math.max(...values), more = (high - low || Math.abs(high) || 1) * pad;
    return [low - more, high + more];
  };
  const xs = [0, reach(points.map((p) => p.x), 0.08)[1]], ys = reach(points.flatMap((p) => p.range || [p.y]), 0.08);
  const x = (v) => box.left + ((v - xs[0]) / (xs[1] - xs[0])) * (box.right - box.left);
  const y = (v) => box.bottom - ((v - ys[0]) / (ys[1] - ys[0])) * (box.bottom - box.top);
  const shown = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", class: "chart" });
  for (const at of ticks(...xs)) {
    shown.append(draw("line", { x1: x(at), x2: x(at), y1: box.top, y2: box.bottom, class: "grid" }));
    shown.append(draw("text", { x: x(at), y: box.bottom + 16, class: "axis", "text-anchor": "middle" }, String(at)));
  }
  for (const at of ticks(...ys)) {
    shown.append(draw("line", { x1: box.left, x2: box.right, y1: y(at), y2: y(at), class: "grid" }));
    shown.append(draw("text", { x: box.left - 8, y: y(at) + 4, class: "axis", "text-anchor": "end" }, String(at)));
  }
  // Names stand in a column of their own, each with a line to its point.
  const sorted = [...points].sort((a, b) => b.y - a.y), places = [];
  sorted.forEach((p, k) => places.push(Math.max(y(p.y), (places[k - 1] ?? -9) + 15)));
  const over = Math.max(0, places[places.length - 1] - box.bottom);
  sorted.forEach((p, k) => {
    const high = Math.max(box.top + 15 * k, places[k] - over);
    const bar = p.range && draw("line", { x1: x(p.x), x2: x(p.x), y1: y(p.range[0]), y2: y(p.range[1]), stroke: ink(p.index), "stroke-width": 2, opacity: 0.6 });
    const lead = draw("path", { d: `M${x(p.x)} ${y(p.y)}L${box.right + 6} ${high}h8`, fill: "none", stroke: ink(p.index), opacity: 0.45 });
    const name = draw("text", { x: box.right + 18, y: high + 4 }, shortened(p.name, 24));
    shown.append(draw("g", {}, draw("title", {}, p.title), lead, bar || null, draw("circle", { cx: x(p.x), cy: y(p.y), r: 5.5, fill: ink(p.index) }), name));
  });
  shown.append(draw("text", { x: box.right, y: height - 8, class: "axis", "text-anchor": "end" }, across));
  shown.append(draw("text", { x: 4, y: 10, class: "axis" }, up));
  return shown;
}
