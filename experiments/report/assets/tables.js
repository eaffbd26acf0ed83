// The table of means, and the differences to the reference.
const sorting = { means: null, paired: null };

function means() {
  const lines = [...byVariant].map(([index, rows]) => {
    const done = rows.filter((row) => db.rows.done[row]);
    return { index, rows, name: db.core.variants[index].name, edits: done.length, n: new Set(done.map((row) => db.rows.task[row])).size, failures: rows.length - done.length,
      seconds: done.length ? mean(done.map(totalSeconds)) : null,
      rss: most(done, db.rows.rss), gpu: most(done, db.rows.gpu),
      values: Object.fromEntries(db.core.columns.map(({ name }) => [name, perTask(index, name)])) };
  });
  for (const line of lines) {
    line.means = Object.fromEntries(Object.entries(line.values).map(([name, values]) => [name, meanOf(line.index, name, values)]));
  }
  return lines;
}
const most = (rows, values) => rows.reduce((high, row) => (values[row] === null ? high : Math.max(high ?? 0, values[row])), null);

function meansTable(lines) {
  const columns = db.core.columns.filter(({ name }) => lines.some((line) => line.means[name] !== null));
  const best = Object.fromEntries(columns.map(({ name, up }) => [name, bestOf(lines, name, up)]));
  const heads = [
    { key: "name", text: "variant", of: (line) => line.name },
    { key: "n", text: "n", of: (line) => line.n, hint: "tasks that are done" },
    { key: "failures", text: "failed", of: (line) => line.failures },
    ...columns.map((column) => ({ key: column.name, text: column.name, column, of: (line) => line.means[column.name]?.mean ?? null })),
    { key: "seconds", text: "s / edit", of: (line) => line.seconds, hint: "mean of all stages together" },
    { key: "rss", text: "host GB", of: (line) => line.rss, hint: "highest peak of the process" },
    { key: "gpu", text: "GPU GB", of: (line) => line.gpu, hint: "highest peak on the device" },
  ].filter(({ key, of }) => key !== "gpu" || lines.some((line) => of(line) !== null));
  const cell = (line, head) => {
    if (head.key === "name") return nameCell(line);
    if (!head.column) return el("td", { class: head.key === "failures" && line.failures ? "bad" : null }, plainNumber(head.of(line), head.key));
    const found = line.means[head.key], n = line.values[head.key].size;
    if (!found) return el("td", {}, "–");
    return el("td", { class: best[head.key].has(line.index) ? "best" : null },
      el("b", {}, format(found.mean)), el("small", {}, ` ${spelled(found.range)}`), n < line.n ? el("small", {}, `n=${n}`) : null);
  };
  return sortable("means", heads, lines, cell, "Means of all edits in view");
}

// Over the tasks that all lines with this column have.
function bestOf(lines, name, up) {
  const held = lines.filter((line) => line.values[name].size);
  if (up === null || held.length < 2) return new Set();
  const tasks = [...held[0].values[name].keys()].filter((task) => held.every((line) => line.values[name].has(task)));
  if (!tasks.length) return new Set();
  const means = held.map((line) => +mean(tasks.map((task) => line.values[name].get(task))).toPrecision(12));
  const first = up ? Math.max(...means) : Math.min(...means);
  return new Set(held.filter((_, k) => means[k] === first).map((line) => line.index));
}
const spelled = (range, write = format) => (range ? `[${write(range[0])}, ${write(range[1])}]` : "");
const plainNumber = (value, key) => (value === null ? "–" : key === "n" || key === "failures" ? String(value) : value.toFixed(2));
const nameCell = (line) => el("th", { scope: "row" }, el("span", { class: "named" }, swatch(line.index), el("a", { href: "#", title: "what it is", on: { click: (event) => { event.preventDefault(); openVariant(line.name); } } }, breakable(line.name))));

// A table whose heads sort it; the order stays while filters change.
function sortable(which, heads, lines, cell, caption) {
  const chosen = sorting[which], head = heads.find((each) => each.key === chosen?.key);
  if (head) {
    const sign = chosen.down ? -1 : 1, key = (line) => head.of(line);
    lines = [...lines].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
    });
  }
  const top = heads.map((each) => {
    const mine = head === each, column = each.column;
    const sort = () => {
      sorting[which] = { key: each.key, down: mine ? !chosen.down : column ? column.up !== false : each.key !== "name" };
      redraw();
      document.querySelector(`[data-sort="${CSS.escape(`${which}/${each.key}`)}"]`)?.focus();
    };
    const hint = column ? [column.description, column.needs && `needs ${column.needs}`].filter(Boolean).join("; ") : each.hint;
    return el("th", { scope: "col", "aria-sort": mine ? (chosen.down ? "descending" : "ascending") : null, title: hint,
      class: column?.name === state.metric ? "chosen" : null },
      el("button", { type: "button", "data-sort": `${which}/${each.key}`, on: { click: sort } },
        column ? breakable(each.text) : each.text, column ? el("small", {}, `${arrow(column)} ${column.unit}`) : null));
  });
  return boxed(caption, el("table", { class: "numbers" }, el("thead", {}, el("tr", {}, top)),
    el("tbody", {}, lines.map((line) => el("tr", {}, heads.map((each) => cell(line, each)))))));
}
// A table scrolls inside its own box; its head and its first column stay.
const boxed = (caption, table) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);

function pairedTable(lines, found) {
  const others = lines.filter((line) => line.index in found).map((line) => ({ ...line, pairs: found[line.index] }));
  const used = db.core.columns.filter(({ name }) => others.some((line) => line.pairs[name]));
  if (!used.length) return null;
  const heads = [
    { key: "name", text: `minus ${db.core.variants[referenceIndex()].name}`, of: (line) => line.name },
    { key: "n", text: "n", hint: "tasks that both finished", of: (line) => Math.max(0, ...Object.values(line.pairs).map((each) => each.n)) },
    ...used.map((column) => ({ key: column.name, text: column.name, column, of: (line) => line.pairs[column.name]?.mean ?? null })),
  ];
  const cell = (line, head) => {
    if (head.key === "name") return nameCell(line);
    if (!head.column) return el("td", {}, String(head.of(line)));
    const each = line.pairs[head.key];
    return each ? differenceCell(each, head.column) : el("td", {}, "–");
  };
  return sortable("paired", heads, others, cell, "Differences to the reference");
}

// Called better or worse where the corrected p is small enough.
function differenceCell({ mean: middle, range, n, clips, p, clear, wins }, column) {
  const said = p === null ? "" : p < 0.001 ? "p<0.001" : `p=${p.toFixed(3)}`, judged = clear && column.up !== null;
  const verdict = judged ? (middle > 0 === column.up ? "better" : "worse") : null;
  return el("td", { class: verdict, title: `${plural(n, "task")} on ${plural(clips, "clip")}` + (column.up === null ? "" : `; better in ${wins}`) },
    el("b", {}, signed(middle)), el("small", {}, ` ${spelled(range, signed)}`), said ? el("small", {}, ` ${said}`) : null,
    verdict ? el("small", { class: "verdict" }, verdict) : null);
}
