// All edits in view as cards. Only the cards on the screen exist, however many edits there are.
const CARD = 372, SPACE = 14, TEXT = 104;
const LONG = 30;  // letters of a name on one line
const gallery = { rows: [], shown: new Map(), place: null, frame: null };

function cases(place) {
  if (!view.length) return place.replaceChildren(nothing());
  gallery.rows = ordered(view, state.order, state.metric);
  gallery.shown = new Map();
  gallery.place = el("div", { id: "gallery" });
  const order = el("select", { "aria-label": "Order", on: { change: (event) => change({ order: event.target.value }) } },
    Object.entries(ORDERS).map(([key, text]) => el("option", { value: key, selected: key === state.order }, text)));
  place.replaceChildren(el("div", { class: "line" },
    el("p", {}, `${plural(view.length, "edit")}, `, order, ` in ${state.metric || "no metric"}`),
    el("p", { class: "quiet" }, "Enter opens a case; there, ← and → go on to the next.")), gallery.place);
  fill();
}

function fill() {
  const { place, rows, shown } = gallery;
  if (!place?.isConnected || state.tab !== "cases") return;
  const wide = place.clientWidth, across = Math.max(1, Math.floor((wide + SPACE) / (CARD + SPACE)));
  const width = Math.floor((wide - SPACE * (across - 1)) / across), high = cardHeight(width) + SPACE;
  const lines = Math.ceil(rows.length / across), top = place.getBoundingClientRect().top;
  if (gallery.frame !== `${across}/${width}`) { shown.clear(); place.replaceChildren(); gallery.frame = `${across}/${width}`; }
  place.style.height = `${lines * high - SPACE}px`;
  const first = Math.max(0, Math.floor((-top - 400) / high)), last = Math.min(lines, Math.ceil((innerHeight - top + 400) / high));
  for (const [index, made] of shown) {
    const line = Math.floor(index / across);
    if (line < first || line >= last) { made.remove(); shown.delete(index); }
  }
  for (let index = first * across; index < Math.min(rows.length, last * across); index++) {
    if (shown.has(index)) continue;
    const made = card(rows[index], rows, width);
    made.style.transform = `translate(${(index % across) * (width + SPACE)}px, ${Math.floor(index / across) * high}px)`;
    shown.set(index, made);
    place.append(made);
  }
  document.documentElement.dataset.cards = shown.size;
}

// High enough for the highest clip there is.
function cardHeight(width) {
  const aspects = db.core.shapes.filter((each) => each.length === 4).map(([, , high, wide]) => high / wide);
  const second = db.core.variants.some((each) => each.name.length > LONG) ? 20 : 0;
  return Math.round(((width - 32) / 3) * Math.min(1.4, Math.max(0.4, ...aspects))) + TEXT + second;
}

function card(row, among, width = CARD) {
  const task = taskOf(row), variant = variantOf(row), value = valueOf(row, state.metric), panels = chosenPanels(row);
  const wide = Math.floor((width - 24 - 4 * 2) / 3);
  const open = (event) => { event.preventDefault(); openCase(row, among); };
  const picture = !db.rows.done[row]
    ? el("span", { class: "message" }, db.core.messages[db.rows.message[row]] || "failed")
    : filesOf(row).sheet && panels.length ? panels.map((panel) => captioned(row, panel, wide))
    : el("span", { class: "message none" }, "no pictures of this edit were kept");
  return el("a", { class: db.rows.done[row] ? "card" : "card failed", href: "#", style: { width: `${width}px`, height: `${cardHeight(width)}px` },
    "data-row": row, on: { click: open } },
    el("span", { class: "tiles" }, picture),
    el("span", { class: "line" }, el("b", { class: "name", title: variant.name }, swatch(db.rows.variant[row]), variant.name),
      el("b", { class: "value" }, value === null ? (db.rows.done[row] ? "" : "failed") : format(value))),
    el("span", { class: "prompt" }, prompts(task.source, task.target)),
    el("span", { class: "quiet" }, `${task.id} · ${task.kind}`, db.core.noted[row] ? el("span", { class: "warned" }, " · warning") : null));
}

addEventListener("scroll", () => requestAnimationFrame(fill), { passive: true });
addEventListener("resize", () => requestAnimationFrame(fill));
