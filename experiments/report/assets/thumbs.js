// Still pictures of an edit, cut out of its contact sheet: a row of frames for the source, the masks and the result.
const SHEET = { gap: 6, line: 22, most: 8 };  // as experiments/jobs/pictures.py draws it

const filesOf = (row) => {
  const plan = db.core.files[db.rows.files[row]], stem = db.core.tasks.stem[db.rows.task[row]], base = variantOf(row).base;
  return Object.fromEntries(Object.entries(plan).map(([kind, path]) => [kind, base + path.replace("{}", stem)]));
};
const panelsOf = (row) => db.core.panels[db.rows.panels[row]];

// Where the frames lie in the sheet; null where the clip's size is not known.
function sheetOf(row) {
  const [frames, , high, wide] = db.core.shapes[db.rows.shape[row]];
  if (!frames || !high || !wide) return null;
  const factor = Math.max(1, Math.floor(160 / high)), large = high * factor > 200;
  const box = large ? { w: Math.floor((wide * 160) / high), h: 160 } : { w: wide * factor, h: high * factor };
  const columns = Math.min(SHEET.most, frames), { gap, line } = SHEET;
  return { box, columns, width: gap + columns * (box.w + gap), aspect: high / wide,
    x: (column) => gap + column * (box.w + gap), y: (panel) => gap + panel * (line + box.h + gap) + line };
}

const KINDS = ["mask", "true answer"];  // a mask's panel may say more: "mask (attention)"
// What a panel shows: of a mask, the place of which words.
const shows = (row, panel) => {
  const words = db.core.sought[db.rows.sought[row]];
  return words.length && /^mask( |$)/.test(panel) ? panel.replace("mask", `mask of ${words.join(", ")}`) : panel;
};
const panelOf = (row, kind) => panelsOf(row).find((name) => name === kind || name.startsWith(`${kind} `));

// What stands in the middle of all cards of a task: what every variant can show, otherwise what some of them can.
function middleOf(task) {
  if (db.middles?.core !== db.core) {
    const counted = db.core.tasks.id.map(() => ({ all: 0 }));
    for (let row = 0; row < db.n; row++) {
      if (!db.rows.done[row] || !panelsOf(row).length) continue;
      const found = counted[db.rows.task[row]];
      found.all += 1;
      for (const kind of KINDS) if (panelOf(row, kind)) found[kind] = (found[kind] || 0) + 1;
    }
    db.middles = { core: db.core, of: counted.map((found) => KINDS.find((kind) => found[kind] === found.all) || KINDS.find((kind) => found[kind])) };
  }
  return db.middles.of[task];
}

// The pictures of a card, [kind, panel]: what was there, the middle, what came of it. A panel that is not there is null.
function chosenPanels(row) {
  const middle = middleOf(db.rows.task[row]);
  if (!panelsOf(row).length) return [];
  return ["source", ...(middle ? [middle] : []), "edited"].map((kind) => [kind, panelOf(row, kind) || null]);
}

// A tile that says what it is.
function captioned(row, [kind, panel], wide) {
  const made = tile(row, panel, wide);
  made.append(el("small", { class: "what" }, panel ? shows(row, panel) : `no ${kind}`));
  return made;
}

function tile(row, panel, wide) {
  const sheet = sheetOf(row), url = filesOf(row).sheet, place = panelsOf(row).indexOf(panel);
  const high = Math.round(wide * (sheet?.aspect || 1));
  const made = el("span", { class: "tile", style: { width: `${wide}px`, height: `${high}px` } });
  if (!sheet || !url || place < 0) return made;
  const scale = wide / sheet.box.w, column = Math.floor((sheet.columns - 1) / 2);
  const gone = () => made.replaceChildren(el("small", {}, "the picture is gone"));
  made.append(el("img", { src: url, alt: `${panel}, ${taskOf(row).id}`, loading: "lazy", decoding: "async", draggable: "false",
    on: { error: gone },
    style: { width: `${sheet.width * scale}px`, left: `${-sheet.x(column) * scale}px`, top: `${-sheet.y(place) * scale}px` } }));
  return made;
}

// Both prompts, with the words that differ marked.
function prompts(source, target) {
  const a = source.split(/\s+/), b = target.split(/\s+/), same = common(a, b);
  const spell = (words, kept, tag) => words.flatMap((word, k) => [kept.has(k) ? word : el(tag, {}, word), " "]);
  return [el("span", { class: "source" }, spell(a, same.a, "del")), el("span", { class: "to" }, " → "),
    el("span", { class: "target" }, spell(b, same.b, "ins"))];
}

function common(a, b) {
  const long = [...Array(a.length + 1)].map(() => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      long[i][j] = a[i] === b[j] ? long[i + 1][j + 1] + 1 : Math.max(long[i + 1][j], long[i][j + 1]);
  const kept = { a: new Set(), b: new Set() };
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { kept.a.add(i++); kept.b.add(j++); }
    else if (long[i + 1][j] >= long[i][j + 1]) i++;
    else j++;
  }
  return kept;
}
