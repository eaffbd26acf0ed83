// What failed and what was warned of, by message; and what the page rests on.
const LISTED = 200;

// A link as a name, where it is one.
const readable = (link) => {
  try { return decodeURIComponent(link); } catch { return link; }
};

function grouped(rows, textsOf) {
  const found = new Map();
  for (const row of rows) {
    for (const text of textsOf(row)) {
      if (!found.has(text)) found.set(text, []);
      found.get(text).push(row);
    }
  }
  return [...found].sort((a, b) => b[1].length - a[1].length);
}

function problems(place) {
  const failed = grouped(view.filter((row) => !db.rows.done[row]), (row) => [db.core.messages[db.rows.message[row]] || "failed without a message"]);
  const warned = grouped(view.filter((row) => db.core.noted[row]), (row) => db.core.noted[row].map((each) => db.core.warnings[each]));
  const parts = [];
  if (failed.length) {
    parts.push(el("h2", {}, "Failed tasks"), el("p", { class: "quiet" }, "The command of the run does them again with retry=failed."), ...failed.map((each) => group(each, "bad")));
  }
  if (warned.length) parts.push(el("h2", {}, "Warnings"), ...warned.map((each) => group(each, "warned")));
  place.replaceChildren(...(parts.length ? parts : [el("p", { class: "notice" }, view.length ? "Nothing failed, and nothing was warned of, among the edits in view." : "No edit fits these filters.")]));
}

function group([text, rows], kind) {
  const [first, ...rest] = text.split("\n"), counts = new Map();
  rows.forEach((row) => counts.set(db.rows.variant[row], (counts.get(db.rows.variant[row]) || 0) + 1));
  const list = () => el("ul", { class: "tasks" }, rows.slice(0, LISTED).map((row) => el("li", {}, el("a", { href: "#", on: { click: (event) => { event.preventDefault(); openCase(row, rows); } } },
    swatch(db.rows.variant[row]), variantOf(row).name, " · ", taskOf(row).id))), rows.length > LISTED ? el("li", { class: "quiet" }, `and ${rows.length - LISTED} more`) : null);
  const made = el("details", { class: "problem" }, el("summary", {}, el("b", { class: kind }, `${rows.length}× `), first),
    rest.length ? el("pre", {}, text) : null, el("p", {}, [...counts].map(([index, n]) => el("span", { class: "tag" }, swatch(index), db.core.variants[index].name, ` ${n}`))));
  made.addEventListener("toggle", () => { if (made.open && !made.querySelector("ul")) made.append(list()); });
  return made;
}
