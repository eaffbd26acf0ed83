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

// As wide as there is room for, so that its letters keep their size.
const room = (most) => Math.min(most, document.querySelector("main").clientWidth);
const NARROW = 520, LINE = 15;  // pixels: a drawing without room for names beside it, and a line of a name

// Lines of {name, title, ...}; marks are drawn by `mark(x, y, entry)` on a shared axis. Names stand before their lines,
// or above them where it is narrow; a long one has several lines and is never cut.
function chart(entries, low, high, mark, { most = 640, unit = "", zero = false } = {}) {
  const width = room(most), narrow = width < NARROW, right = width - 70;
  const label = narrow ? 18 : Math.min(Math.max(120, ...entries.map((each) => measure(each.name) + 18)), width * 0.45);
  const x = (value) => label + ((value - low) / (high - low || 1)) * (right - label);
  let bottom = 6;
  const body = entries.map((entry) => {
    const lines = wrapped(entry.name, narrow ? width : label - 16), text = lines.length * LINE, top = bottom;
    bottom += narrow ? text + 26 : Math.max(26, text + 8);
    const y = narrow ? top + text + 12 : (top + bottom) / 2;
    const name = narrow ? lettering(lines, 0, top + 12, "start") : lettering(lines, label - 10, y + 4 - (text - LINE) / 2, "end");
    return draw("g", {}, draw("title", {}, entry.title), name, ...mark(x, y, entry));
  });
  const axis = ticks(low, high, narrow ? 4 : 5).map((at) => [
    draw("line", { x1: x(at), x2: x(at), y1: 6, y2: bottom, class: zero && at === 0 ? "zero" : "grid" }),
    draw("text", { x: x(at), y: bottom + 16, class: "axis", "text-anchor": "middle" }, String(at)),
  ]);
  const height = bottom + 36, shown = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", class: "chart" });
  shown.append(...axis.flat(), ...body, draw("text", { x: right, y: bottom + 32, class: "axis", "text-anchor": "end" }, unit));
  return shown;
}

// The width of a name in a drawing, as the browser sets it.
function measure(text) {
  measure.pen ||= document.createElement("canvas").getContext("2d");
  measure.pen.font = `12.5px ${getComputedStyle(document.body).fontFamily}`;
  return measure.pen.measureText(text).width;
}

// A name in lines no longer than that, broken where its parts end, or else anywhere.
function wrapped(name, width) {
  const lines = [""];
  const add = (piece) => {
    if (measure(lines.at(-1) + piece.trimEnd()) <= width || !lines.at(-1)) lines[lines.length - 1] += piece;
    else lines.push(piece);
  };
  for (const part of name.split(/(?<=[\s._/=-])/)) (measure(part) > width ? [...part] : [part]).forEach(add);
  return lines;
}

const lettering = (lines, x, y, anchor) => draw("text", { y, "text-anchor": anchor }, ...lines.map((line, k) => draw("tspan", { x, dy: k ? LINE : 0 }, line)));

// A name that may break where its parts end.
const breakable = (name) => (name.includes(" ") ? [name]
  : name.split(/(?=[[])|(?<=[._/=-])/).flatMap((part, k) => (k ? [el("wbr"), part] : [part])));

function whiskers(x, y, { at, range, index, faint }) {
  const color = ink(index), shown = [];
  if (range) shown.push(draw("line", { x1: x(range[0]), x2: x(range[1]), y1: y, y2: y, stroke: color, "stroke-width": 3, opacity: faint ? 0.45 : 0.9, "stroke-linecap": "round" }));
  return [...shown, draw("circle", { cx: x(at), cy: y, r: 5, fill: color, opacity: faint ? 0.6 : 1 })];
}

// Points with intervals over two numbers. Names stand in a column of their own, each with a line to its point; where it
// is narrow, whoever shows this lists them.
function scatter(points, { across, up, most = 700 }) {
  const width = room(most), narrow = width < NARROW;
  const column = narrow ? 0 : Math.min(Math.max(...points.map((p) => measure(p.name))) + 4, width * 0.4);
  const sorted = [...points].sort((a, b) => b.y - a.y).map((p) => ({ ...p, lines: narrow ? [] : wrapped(p.name, column) }));
  const tall = sorted.reduce((sum, p) => sum + p.lines.length * LINE, 0), height = Math.max(300, tall + 60);
  const box = { left: 62, right: width - (narrow ? 10 : column + 22), top: 18, bottom: height - 42 };
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
  let free = 0, least = box.top;
  const places = sorted.map((p) => {
    const at = Math.max(y(p.y), free);
    free = at + p.lines.length * LINE;
    return at;
  });
  const over = Math.max(0, free - LINE - box.bottom);
  sorted.forEach((p, k) => {
    const high = Math.max(least, places[k] - over);
    least += p.lines.length * LINE;
    const bar = p.range && draw("line", { x1: x(p.x), x2: x(p.x), y1: y(p.range[0]), y2: y(p.range[1]), stroke: ink(p.index), "stroke-width": 2, opacity: 0.6 });
    const named = narrow ? [] : [draw("path", { d: `M${x(p.x)} ${y(p.y)}L${box.right + 6} ${high}h8`, fill: "none", stroke: ink(p.index), opacity: 0.45 }), lettering(p.lines, box.right + 18, high + 4, "start")];
    shown.append(draw("g", {}, draw("title", {}, p.title), bar || null, draw("circle", { cx: x(p.x), cy: y(p.y), r: 5.5, fill: ink(p.index) }), ...named));
  });
  shown.append(draw("text", { x: box.right, y: height - 8, class: "axis", "text-anchor": "end" }, across));
  shown.append(draw("text", { x: 4, y: 10, class: "axis" }, up));
  return shown;
}
