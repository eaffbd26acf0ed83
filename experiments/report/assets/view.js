// What is shown: the filters, kept in the address after #, and the rows that pass them.
const db = { n: 0, core: null, words: [] };
const EMPTY = { q: "", clip: "", method: "", kind: "", status: "", metric: "", order: "worst", tab: "overview",
  variants: null, reference: "", task: "", of: "" };
const state = { ...EMPTY };
const STAGES = ["load", "encode", "inversion", "masks", "sampling", "decoding", "edit", "metrics"];
let view = [];  // numbers of rows
let byVariant = new Map();  // variant -> its rows in view
let averages = new Map();  // variant and metric -> task -> its value in view

function take(core) {
  db.core = core;
  db.rows = core.rows;
  db.n = core.rows.variant.length;
  db.counts = core.variants.map(() => 0);
  core.rows.variant.forEach((variant) => { db.counts[variant] += 1; });
  db.columns = new Map(core.columns.map((column) => [column.name, column]));
  const { id, clip, kind, source, target } = core.tasks;
  db.words = id.map((each, k) => `${each}\n${core.clips[clip[k]]}\n${source[k]}\n${target[k]}`.toLowerCase());
  db.clipsLow = core.clips.map((each) => each.toLowerCase());
  const places = Object.keys(core.stages), known = (name) => (STAGES.indexOf(name) + STAGES.length + 1) % (STAGES.length + 1);
  db.stages = places.sort((a, b) => known(a) - known(b));
  db.methods = [...new Set(core.variants.flatMap((each) => each.about.method || []))];
}

const taskOf = (row) => {
  const { tasks, rows, clips, kinds } = db.core, t = rows.task[row];
  return { index: t, id: tasks.id[t], clip: clips[tasks.clip[t]], kind: kinds[tasks.kind[t]],
    source: tasks.source[t], target: tasks.target[t] };
};
const variantOf = (row) => db.core.variants[db.rows.variant[row]];
const valueOf = (row, metric) => (db.rows.done[row] ? db.core.metrics[metric]?.[row] ?? null : null);
const totalSeconds = (row) => {
  let sum = 0;
  for (const values of Object.values(db.core.stages)) sum += values[row] || 0;
  return sum;
};
const better = (metric) => (db.columns.get(metric)?.up === false ? -1 : 1);
const arrow = (column) => ({ true: "↑", false: "↓", null: "" })[String(column.up)];
const referenceIndex = () => {
  const asked = db.core.variants.findIndex((each) => each.name === state.reference);
  return asked >= 0 ? asked : db.core.reference;
};
const shownVariant = (index) => state.variants === null || state.variants.has(db.core.variants[index].name);

function filter() {
  const { rows, tasks, noted } = db.core, { q, clip, method, kind, status } = state;
  const words = q.toLowerCase().split(/\s+/).filter(Boolean), low = clip.toLowerCase();
  const exact = db.clipsLow.includes(low);
  const clipFits = db.clipsLow.map((each) => (exact ? each === low : each.includes(low)));
  const taskFits = tasks.id.map((_, k) =>
    (!kind || db.core.kinds[tasks.kind[k]] === kind) && clipFits[tasks.clip[k]] &&
    words.every((word) => db.words[k].includes(word)));
  const variantFits = db.core.variants.map((each, k) =>
    shownVariant(k) && (!method || (each.about.method || []).includes(method)));
  const statusFits = { "": () => true, done: (r) => rows.done[r], failed: (r) => !rows.done[r],
    warned: (r) => noted[r] }[status] || (() => true);
  view = [];
  byVariant = new Map();
  averages = new Map();
  for (let row = 0; row < db.n; row++) {
    const variant = rows.variant[row];
    if (!variantFits[variant] || !taskFits[rows.task[row]] || !statusFits(row)) continue;
    view.push(row);
    if (!byVariant.has(variant)) byVariant.set(variant, []);
    byVariant.get(variant).push(row);
  }
}

// The rows of a metric: values, their rows, and the rows' clips.
function measured(rows, metric) {
  const all = db.core.metrics[metric] || [], values = [], kept = [];
  for (const row of rows) {
    if (db.rows.done[row] && all[row] !== null && all[row] !== undefined) { values.push(all[row]); kept.push(row); }
  }
  return { values, rows: kept };
}

// One value for each task of a variant in view; several seeds are averaged.
function perTask(variant, metric) {
  const key = `${variant} ${metric}`;
  if (!averages.has(key)) averages.set(key, averaged(variant, metric));
  return averages.get(key);
}
function averaged(variant, metric) {
  const { values, rows } = measured(byVariant.get(variant) || [], metric), found = new Map();
  rows.forEach((row, k) => {
    const task = db.rows.task[row];
    if (!found.has(task)) found.set(task, []);
    found.get(task).push(values[k]);
  });
  found.forEach((each, task) => found.set(task, mean(each)));
  return found;
}
const clipsOf = (tasks) => tasks.map((task) => db.core.tasks.clip[task]);

// Means and differences as the tables have them where no filter has changed what they are over, else counted here.
const whole = (variant) => byVariant.get(variant)?.length === db.counts[variant];
function meanOf(variant, metric, values) {
  if (!values.size) return null;
  const { means, rules } = db.core.settled;
  return (whole(variant) && means[variant][metric]) || estimate([...values.values()], clipsOf([...values.keys()]), rules);
}

// Of the variants to the reference, by variant and column: p is corrected for all of them.
function differences(variants, metrics) {
  const { reference, differences: told, rules } = db.core.settled, base = referenceIndex();
  const found = variants.map(() => ({})), every = [];
  for (const metric of metrics) {
    const there = perTask(base, metric);
    variants.forEach((variant, k) => {
      const here = perTask(variant, metric), tasks = [...here.keys()].filter((task) => there.has(task));
      if (!tasks.length) return;
      const apart = tasks.map((task) => near(here.get(task), there.get(task), rules.same) - there.get(task));
      found[k][metric] = { ...estimate(apart, clipsOf(tasks), rules), wins: apart.filter((each) => better(metric) * each > 0).length };
      every.push(found[k][metric]);
    });
  }
  holm(every.map((each) => each.p)).forEach((p, k) => Object.assign(every[k], { p, clear: p !== null && p <= rules.clear }));
  if (base !== reference || view.length !== db.n) return found;
  variants.forEach((variant, k) => Object.entries(found[k]).forEach(([metric, each]) => Object.assign(each, told[variant][metric])));
  return found;
}
const near = (one, two, same) => (Math.abs(one - two) <= same * Math.max(Math.abs(one), Math.abs(two)) ? two : one);

const ORDERS = {
  worst: "worst first", best: "best first", behind: "furthest behind the reference",
  ahead: "furthest ahead of the reference", task: "by task", slow: "slowest first",
};

// Rows in the chosen order; those without a value come last.
function ordered(rows, order, metric) {
  if (order === "task") return [...rows].sort((a, b) => db.rows.task[a] - db.rows.task[b] || a - b);
  const base = order === "behind" || order === "ahead" ? perTask(referenceIndex(), metric) : null;
  const reference = referenceIndex(), sign = better(metric) * (order === "best" || order === "ahead" ? -1 : 1);
  const key = (row) => {
    if (order === "slow") return -totalSeconds(row);
    const value = valueOf(row, metric);
    if (value === null || !base) return value === null ? null : sign * value;
    const other = db.rows.variant[row] === reference ? undefined : base.get(db.rows.task[row]);
    return other === undefined ? null : sign * (value - other);
  };
  const keyed = rows.map((row) => [key(row), row]);
  return keyed.sort((a, b) => (a[0] === null) - (b[0] === null) || a[0] - b[0] || a[1] - b[1]).map((each) => each[1]);
}

function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, EMPTY);
  for (const key of Object.keys(EMPTY)) if (key !== "variants" && said.has(key)) state[key] = said.get(key);
  const named = said.getAll("variant");
  state.variants = named.length ? new Set(named) : null;
  const columns = db.core.columns;
  if (!db.columns.has(state.metric)) state.metric = (columns.find((each) => each.name === "oracle_psnr") || columns[0])?.name || "";
  if (!(state.order in ORDERS)) state.order = "worst";
}

function writeAddress() {
  const said = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (key !== "variants" && value !== EMPTY[key]) said.set(key, value);
  }
  for (const name of state.variants || []) said.append("variant", name);
  history.replaceState(null, "", `#${said}`);
}
