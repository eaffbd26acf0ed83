// One edit, large: its videos in step, its numbers among the others', and the same task in other variants.
const opened = { row: null, among: [], player: null, beside: new Set() };

function openCase(row, among) {
  const dialog = document.getElementById("case"), before = opened.player;
  const frame = before?.frame ?? 0, mode = before?.mode ?? "beside", playing = before ? before.playing : true;
  before?.close();
  Object.assign(opened, { row, among, player: new Player() });
  Object.assign(opened.player, { frame, mode });
  const task = taskOf(row), variant = variantOf(row), place = among.indexOf(row);
  Object.assign(state, { task: task.id, of: variant.name });
  writeAddress();
  const step = (by, text, hint) => el("button", { type: "button", title: hint, "aria-label": hint, disabled: !among[place + by] && among[place + by] !== 0, on: { click: () => go(by) } }, text);
  const side = el("aside", {}, el("p", { class: "quiet" }, "…"));
  dialog.replaceChildren(
    el("div", { class: "line head" },
      el("h2", { tabindex: "-1", autofocus: true }, swatch(db.rows.variant[row]), variant.name, el("small", {}, ` ${task.id} · ${task.kind}`)),
      el("span", {}, place >= 0 ? el("small", { class: "quiet" }, `${place + 1} of ${among.length} `) : null,
        step(-1, "←", "the one before (←)"), step(1, "→", "the next (→)"),
        el("button", { type: "button", title: "close (Esc)", "aria-label": "close", on: { click: () => dialog.close() } }, "✕"))),
    el("p", { class: "prompt" }, prompts(task.source, task.target)),
    el("div", { class: "body" }, el("div", {}, db.rows.done[row] ? null : failure(row), opened.player.place, siblings(row)), side));
  if (!dialog.open) dialog.showModal();
  document.documentElement.dataset.case = `${variant.name}/${task.id}`;
  refresh().then(() => { if (playing) opened.player.start(); });
  details(row).then((found) => side.replaceChildren(...facts(row, found)), (error) => side.replaceChildren(el("p", { class: "bad" }, error.message)));
}

const failure = (row) => el("pre", { class: "bad" }, db.core.messages[db.rows.message[row]] || "failed without a message");

function go(by) {
  const next = opened.among[opened.among.indexOf(opened.row) + by];
  if (next !== undefined) openCase(next, opened.among);
}

async function details(row) {
  const piece = freemask.head().piece, found = await freemask.need(`details-${Math.floor(row / piece)}`);
  return found[row % piece];
}

const sameTask = (row) => [...Array(db.n).keys()].filter((each) => db.rows.task[each] === db.rows.task[row] && each !== row);

// The panels of this edit, and the results of those put beside it.
function refresh() {
  const row = opened.row, index = db.rows.variant[row];
  if (!db.rows.done[row]) { opened.player.place.hidden = true; return Promise.resolve(); }
  const mine = [...panelsOf(row), ...Object.keys(filesOf(row)).filter((kind) => !filesOf(row).video && !["sheet", "frames"].includes(kind))];
  const own = [...new Set(mine.length ? mine : ["side by side"])].map((panel) => ({ row, panel, index: panel === "edited" ? index : undefined, name: panel === "edited" ? variantOf(row).name : "" }));
  const others = sameTask(row).filter((each) => opened.beside.has(variantOf(each).name) && db.rows.done[each]);
  const more = others.flatMap((each) => panelsOf(each).filter((panel) => panel === "edited" || panel.split(" ")[0] === "mask")
    .map((panel) => ({ row: each, panel, index: db.rows.variant[each], name: variantOf(each).name })));
  return opened.player.show([...own, ...more]);
}

function siblings(row) {
  const others = sameTask(row);
  if (!others.length) return null;
  const put = (name, button) => {
    const now = !opened.beside.has(name);
    if (now) opened.beside.add(name); else opened.beside.delete(name);
    button.setAttribute("aria-pressed", now);
    refresh();
  };
  const shown = others.map((each) => {
    const { name } = variantOf(each), value = valueOf(each, state.metric), apart = value === null ? null : value - valueOf(row, state.metric);
    const beside = el("button", { type: "button", "aria-pressed": opened.beside.has(name), title: "play beside this one",
      on: { click: (event) => put(name, event.currentTarget) } }, "beside");
    return el("div", { class: "sibling" },
      el("a", { href: "#", title: "look at this one", on: { click: (event) => { event.preventDefault(); openCase(each, opened.among.includes(each) ? opened.among : others.concat(row)); } } },
        db.rows.done[each] ? tile(each, "edited", 104) : el("span", { class: "tile gone" }, "failed"), el("b", {}, swatch(db.rows.variant[each]), name)),
      el("span", { class: "line" }, el("span", { title: state.metric }, format(value), apart === null ? null : el("small", {}, ` ${signed(apart)}`)), db.rows.done[each] ? beside : null));
  });
  return [el("h3", {}, "The same task in other variants"), el("div", { class: "siblings" }, shown)];
}

function facts(row, found) {
  const told = (pairs) => el("dl", {}, pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
  const spell = (value) => (typeof value === "number" && !Number.isInteger(value) ? format(value) : value === true ? "yes" : value === false ? "no" : typeof value === "object" ? JSON.stringify(value) : value);
  const files = filesOf(row), names = { edited: "video", video: "side by side", sheet: "contact sheet", frames: "frames, lossless" };
  const links = Object.entries(files).map(([kind, url]) => el("li", {}, el("a", { href: url, target: "_blank", rel: "noopener" }, names[kind] || kind)));
  const times = db.stages.filter((name) => db.core.stages[name][row] !== null).map((name) => [name, seconds(db.core.stages[name][row])]);
  const warned = (db.core.noted[row] || []).map((each) => db.core.warnings[each]);
  const about = [["host memory", db.rows.rss[row] === null ? null : `${db.rows.rss[row].toFixed(2)} GB`], ["GPU memory", db.rows.gpu[row] === null ? null : `${db.rows.gpu[row].toFixed(2)} GB`],
    ["commit", db.core.commits[db.rows.commit[row]].replace(/^(.{12}).*?(\+?)$/, "$1$2").replace("+", " with local changes")], ["device", found.device], ["dtype", found.dtype], ["finished", found.finished?.slice(0, 19).replace("T", " ")],
    found.where ? ["where", found.where] : null].filter((pair) => pair && pair[1] !== undefined && pair[1] !== null && pair[1] !== "");
  return [ranks(row), ...(warned.length ? [el("h3", {}, "Warnings"), ...warned.map((each) => el("p", { class: "warned" }, each))] : []),
    el("h3", {}, "What this edit is"), told([...Object.entries(found.explained), ...Object.entries(found.others).map(([name, value]) => [name, spell(value)])]),
    el("h3", {}, "Time"), told([...times, ["together", seconds(totalSeconds(row))]]), el("h3", {}, "Run"), told(about),
    ...(links.length ? [el("h3", {}, "Files"), el("ul", {}, links)] : [])];
}

function ranks(row) {
  const lines = db.core.columns.filter(({ name }) => valueOf(row, name) !== null).map((column) => {
    const value = valueOf(row, column.name), { values } = measured(byVariant.get(db.rows.variant[row]) || [], column.name);
    const ahead = values.filter((each) => (column.up === false ? each < value : each > value)).length;
    return el("tr", { class: column.name === state.metric ? "chosen" : null, title: column.description }, el("th", { scope: "row" }, column.name, el("small", {}, ` ${arrow(column)} ${column.unit}`)),
      el("td", {}, el("b", {}, format(value))), el("td", { class: "quiet" }, values.length > 1 ? `${ahead + 1} of ${values.length}` : ""));
  });
  return lines.length ? el("table", { class: "numbers ranks" }, el("thead", {}, el("tr", {}, ["metric", "value", "rank in view"].map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, lines)) : el("p", { class: "quiet" }, "no metrics");
}
