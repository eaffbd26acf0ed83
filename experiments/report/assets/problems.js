// What failed and what was warned of, each once: how often, in which variants, for which tasks.
const LISTED = 200, TEXTS = 20;

// A link as a name, where it is one.
const readable = (link) => {
  try { return decodeURIComponent(link); } catch { return link; }
};

// What a message says of any task: its first line, without the task's own names and without numbers.
function patternOf(text, { id, clip }) {
  const own = [id, clip].filter(Boolean).reduce((said, name) => said.replaceAll(name, "…"), text.split("\n")[0]);
  return own.replace(/\d+(\.\d+)?/g, "…");
}

// Alike messages together, the most frequent first: {title, texts: [text, rows][], rows}.
function alike(rows, textsOf) {
  const found = new Map();
  for (const row of rows) {
    for (const text of textsOf(row)) {
      const pattern = patternOf(text, taskOf(row));
      if (!found.has(pattern)) found.set(pattern, new Map());
      const texts = found.get(pattern);
      if (!texts.has(text)) texts.set(text, []);
      texts.get(text).push(row);
    }
  }
  const more = (a, b) => b[1].length - a[1].length;
  return [...found].map(([pattern, texts]) => {
    const firsts = new Set([...texts.keys()].map((text) => text.split("\n")[0]));
    return { title: firsts.size === 1 ? [...firsts][0] : pattern, texts: [...texts].sort(more), rows: [...new Set([...texts.values()].flat())] };
  }).sort((a, b) => b.rows.length - a.rows.length);
}

// What the edits in view have: as many as there are different messages.
function causes() {
  const failed = alike(view.filter((row) => !db.rows.done[row]), (row) => [db.core.messages[db.rows.message[row]] || "failed without a message"]);
  const warned = alike(view.filter((row) => db.core.noted[row]), (row) => db.core.noted[row].map((each) => db.core.warnings[each]));
  return { failed, warned };
}

function problems(place) {
  const { failed, warned } = causes(), parts = [];
  if (failed.length) {
    parts.push(el("h2", {}, "Failed tasks"), el("p", { class: "quiet" }, "The command of the run does them again with retry=failed."), ...failed.map((each) => problem(each, "bad")));
  }
  if (warned.length) parts.push(el("h2", {}, "Warnings"), ...warned.map((each) => problem(each, "warned")));
  place.replaceChildren(...(parts.length ? parts : [el("p", { class: "notice" }, view.length ? "Nothing failed, and nothing was warned of, among the edits in view." : "No edit fits these filters.")]));
}

function problem({ title, texts, rows }, kind) {
  const counts = new Map(), tasks = new Set(rows.map((row) => db.rows.task[row]));
  rows.forEach((row) => counts.set(db.rows.variant[row], (counts.get(db.rows.variant[row]) || 0) + 1));
  const tags = [...counts].map(([index, n]) => el("span", { class: "tag" }, swatch(index), `${db.core.variants[index].name} ${n}`));
  const summary = el("summary", {}, el("b", { class: kind }, `${rows.length}× `), title,
    el("span", { class: "tags" }, el("span", { class: "tag" }, plural(tasks.size, "task")), db.core.variants.length > 1 ? tags : null));
  const made = el("details", { class: "problem" }, summary);
  const whole = () => texts.slice(0, TEXTS).flatMap(([text, own]) => [text === title ? null : el("pre", {}, text), affected(own, rows)]);
  made.addEventListener("toggle", () => {
    if (made.open && made.children.length === 1) made.append(...whole().filter(Boolean), texts.length > TEXTS ? el("p", { class: "quiet" }, `and ${texts.length - TEXTS} more messages`) : "");
  });
  return made;
}

function affected(own, rows) {
  const link = (row) => el("a", { href: "#", on: { click: (event) => { event.preventDefault(); openCase(row, rows); } } }, swatch(db.rows.variant[row]), variantOf(row).name, " · ", taskOf(row).id);
  return el("ul", { class: "tasks" }, own.slice(0, LISTED).map((row) => el("li", {}, link(row))),
    own.length > LISTED ? el("li", { class: "quiet" }, `and ${own.length - LISTED} more`) : null);
}
