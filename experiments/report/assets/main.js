// Puts the parts together: filters, tabs, keys, and the address that remembers them.
const PARTS = { overview, variants, cases, costs, problems, facts: basis };
const root = document.documentElement, form = document.getElementById("filters");
const byId = (id) => document.getElementById(id);

let drawnAt = 0;  // the width that drawings were made for

function change(values) {
  Object.assign(state, values);
  writeAddress();
  redraw();
}
function reset() {
  Object.assign(state, { ...EMPTY, tab: state.tab, metric: state.metric, order: state.order, reference: state.reference });
  change({});
}

function redraw() {
  later.clear();
  filter();
  fields();
  chips();
  for (const name of Object.keys(PARTS)) {
    const chosen = name === state.tab, tab = byId(`tab-${name}`);
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    byId(name).hidden = !chosen;
    if (chosen) PARTS[name](byId(name)); else byId(name).replaceChildren();
  }
  byId("tab-cases").querySelector(".count").textContent = view.length;
  const { failed, warned } = causes();
  byId("tab-problems").querySelector(".count").textContent = failed.length + warned.length || "";
  drawnAt = document.querySelector("main").clientWidth;
  Object.assign(root.dataset, { shown: view.length, total: db.n, variants: byVariant.size });
}

function fields() {
  for (const key of ["q", "clip", "method", "kind", "status", "metric"]) if (form.elements[key].value !== state[key]) form.elements[key].value = state[key];
}

function chips() {
  const { variants } = db.core, place = byId("chips");
  place.hidden = variants.length < 2;
  if (variants.length < 2) return;
  const press = (name) => {
    const now = new Set(state.variants === null ? [] : state.variants);
    if (now.has(name)) now.delete(name); else now.add(name);
    change({ variants: now.size && now.size < variants.length ? now : null });
    [...place.children].find((each) => each.dataset.name === name)?.focus();
  };
  place.replaceChildren(...variants.map((each, k) => el("button", { type: "button", class: "chip", "data-name": each.name,
    "aria-pressed": state.variants !== null && state.variants.has(each.name), title: `show ${each.name} alone, or with others`, on: { click: () => press(each.name) } }, swatch(k), each.name)));
}

function prepare() {
  const { core } = db, failed = db.rows.done.filter((each) => !each).length;
  const options = (name, first, values) => form.elements[name].replaceChildren(...(first ? [el("option", { value: "" }, first)] : []), ...values.map((each) => el("option", { value: each }, each)));
  options("method", "every method", db.methods);
  form.elements.method.hidden = db.methods.length < 2;
  options("kind", "every kind", core.kinds);
  form.elements.kind.hidden = core.kinds.length < 2;
  options("metric", null, core.columns.map((each) => each.name));
  byId("clips").replaceChildren(...core.clips.slice(0, 500).map((each) => el("option", { value: each })));
  const methods = db.methods.length ? `${db.methods.join(", ")}; ` : "";
  byId("about").textContent = `${methods}${plural(db.n, "edit")} of ${plural(core.tasks.id.length, "task")} on ${plural(core.clips.length, "clip")}` +
    (core.variants.length > 1 ? ` in ${core.variants.length} variants` : "") + `: ${db.n - failed} done, ${failed} failed`;
  byId("notices").replaceChildren(...core.notices.map((each) => el("p", { class: "notice" }, each)));
}

function listen() {
  let timer = 0, settling = 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => change({ [event.target.name]: event.target.value }), event.target.tagName === "INPUT" ? 150 : 0);
  });
  form.addEventListener("reset", (event) => { event.preventDefault(); clearTimeout(timer); reset(); });
  for (const name of Object.keys(PARTS)) byId(`tab-${name}`).addEventListener("click", () => { change({ tab: name }); scrollTo(0, 0); });
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    const names = Object.keys(PARTS), by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = names[(names.indexOf(state.tab) + by + names.length) % names.length];
    change({ tab: next });
    byId(`tab-${next}`).focus();
  });
  byId("case").addEventListener("close", () => {
    opened.player?.close();
    Object.assign(opened, { player: null, row: null });
    delete root.dataset.case;
    Object.assign(state, { task: "", of: "" });
    writeAddress();
  });
  addEventListener("keydown", keys);
  addEventListener("resize", () => {
    clearTimeout(settling);
    settling = setTimeout(() => { if (["overview", "costs"].includes(state.tab) && document.querySelector("main").clientWidth !== drawnAt) redraw(); }, 150);
  });
  addEventListener("hashchange", () => { readAddress(); redraw(); openNamed(); });
}

function keys(event) {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range";
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const { player } = opened, button = event.target.tagName === "BUTTON", range = event.target.type === "range";
  if (!player) {
    if (event.key === "/") { form.elements.q.focus(); event.preventDefault(); }
    return;
  }
  const acts = { " ": () => player.toggle(), ",": () => player.by(-1), ".": () => player.by(1), s: () => player.setMode(player.mode === "beside" ? "slider" : "beside"),
    ArrowLeft: () => go(-1), ArrowRight: () => go(1) };
  if (!(event.key in acts) || (button && event.key === " ") || (range && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  acts[event.key]();
}

// A case that the address names.
function openNamed() {
  if (!state.task) return byId("case").open && byId("case").close();
  const rows = [...Array(db.n).keys()].filter((row) => db.core.tasks.id[db.rows.task[row]] === state.task);
  const row = rows.find((each) => variantOf(each).name === state.of) ?? rows[0];
  if (row !== undefined && row !== opened.row) openCase(row, ordered(view, state.order, state.metric));
}

freemask.need("core").then((core) => {
  take(core);
  readAddress();
  prepare();
  listen();
  redraw();
  openNamed();
  requestAnimationFrame(() => setTimeout(() => { root.dataset.ready = Math.round(performance.now()); }, 0));
}).catch((error) => {
  byId("notices").replaceChildren(el("p", { class: "notice bad" }, `The page could not be shown: ${error.message}`));
  root.dataset.broken = error.message;
});
