// The table of means, and the differences to the reference.
const sorting = { means: null, paired: null };

function means() {
  const lines = [...byVariant].map(([index, rows]) => {
    const done = rows.filter((row) => db.rows.done[row]);
    return { index, rows, name: db.core.variants[index].name, n: done.length, failures: rows.length - done.length,
      seconds: done.length ? mean(done.map(totalSeconds)) : null,
      rss: most(done, db.rows.rss), gpu: most(done, db.rows.gpu),
      values: Object.fromEntries(db.core.columns.map(({ name }) => [name, measured(rows, name)])) };
  });
  for (const line of lines) {
    line.means = Object.fromEntries(Object.entries(line.values).map(([name, { values }]) => [name, values.length ? mean(values) : null]));
  }
  return lines;
}
const most = (rows, values) => rows.reduce((high, row) => (values[row] === null ? high : Math.max(high ?? 0, values[row])), null);

function meansTable(lines) {
  const columns = db.core.columns.filter(({ name }) => lines.some((line) => line.means[name] !== null));
  const best = Object.fromEntries(columns.map(({ name, up }) => [name, bestOf(lines, name, up)]));
  const heads = [
    { key: "name", text: "variant", of: (line) => line.name },
    { key: "n", text: "n", of: (line) => line.n, hint: "edits that are done" },
    { key: "failures", text: "failed", of: (line) => line.failures },
    ...columns.map((column) => ({ key: column.name, text: column.name, column, of: (line) => line.means[column.name] })),
    { key: "seconds", text: "s / edit", of: (line) => line.seconds, hint: "mean of all stages together" },
    { key: "rss", text: "host GB", of: (line) => line.rss, hint: "highest peak of the process" },
    { key: "gpu", text: "GPU GB", of: (line) => line.gpu, hint: "highest peak on the device" },
  ].filter(({ key, of }) => key !== "gpu" || lines.some((line) => of(line) !== null));
  const cell = (line, head) => {
    if (head.key === "name") return nameCell(line);
    if (!head.column) return el("td", { class: head.key === "failures" && line.failures ? "bad" : null }, plainNumber(head.of(line), head.key));
    const value = line.means[head.key], { values, rows } = line.values[head.key];
    const range = el("small", {}, " ");
    const made = el("td", { class: best[head.key] === value && value !== null ? "best" : null },
      el("b", {}, format(value)), range, values.length < line.n && values.length ? el("small", {}, `n=${values.length}`) : null);
    if (values.length) later.add(() => { range.textContent = spelled(meanInterval(line.index, head.key, { values, rows })); });
    return made;
  };
  return sortable("means", heads, lines, cell, "Means of all edits in view");
}

function bestOf(lines, name, up) {
  const values = lines.map((line) => line.means[name]).filter((value) => value !== null);
  return up === null || values.length < 2 ? undefined : up ? Math.max(...values) : Math.min(...values);
}
const spelled = (range, write = format) => (range ? `[${write(range[0])}, ${write(range[1])}]` : "");
const plainNumber = (value, key) => (value === null ? "–" : key === "n" || key === "failures" ? String(value) : value.toFixed(2));
const nameCell = (line) => el("th", { scope: "row", title: line.name }, swatch(line.index), line.name);

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
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: "numbers" }, el("thead", {}, el("tr", {}, top)),
      el("tbody", {}, lines.map((line) => el("tr", {}, heads.map((each) => cell(line, each)))))));
}

function pairedTable(lines) {
  const reference = referenceIndex(), others = lines.filter((line) => line.index !== reference);
  const columns = db.core.columns;
  const found = others.map((line) => ({ ...line, pairs: Object.fromEntries(columns.map(({ name }) => [name, paired(line.index, name)])) }));
  const used = columns.filter(({ name }) => found.some((line) => line.pairs[name].values.length));
  if (!used.length) return null;
  const heads = [
    { key: "name", text: `minus ${db.core.variants[reference].name}`, of: (line) => line.name },
    { key: "n", text: "n", hint: "tasks that both finished", of: (line) => Math.max(0, ...used.map(({ name }) => line.pairs[name].values.length)) },
    ...used.map((column) => ({ key: column.name, text: column.name, column,
      of: (line) => (line.pairs[column.name].values.length ? mean(line.pairs[column.name].values) : null) })),
  ];
  const cell = (line, head) => {
    if (head.key === "name") return nameCell(line);
    if (!head.column) return el("td", {}, String(head.of(line)));
    const { values } = line.pairs[head.key];
    if (!values.length) return el("td", {}, "–");
    const made = el("td", {}, el("b", {}, signed(mean(values)))), range = el("small", {}, " ");
    made.append(range);
    later.add(() => judge(made, range, line, head.column));
    return made;
  };
  return sortable("paired", heads, found, cell, "Differences to the reference");
}

// Marked where the interval leaves out 0 and there are clips enough to tell.
function judge(cell, range, line, column) {
  const { values, clips } = line.pairs[column.name], reach = pairInterval(line.index, column.name, { values, clips }), many = new Set(clips).size, middle = mean(values);
  range.textContent = spelled(reach, signed);
  const wins = values.filter((value) => (column.up === false ? value < 0 : value > 0)).length;
  const p = settledPair(line.index, column.name)?.p ?? null;
  cell.title = `${plural(values.length, "task")} on ${plural(many, "clip")}` + (column.up === null ? "" : `; better in ${wins}`) +
    (p === null ? "" : `; p ${p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`}`);
  if (!reach || many < ENOUGH || (reach[0] <= 0 && reach[1] >= 0) || column.up === null) return;
  cell.className = middle > 0 === column.up ? "better" : "worse";
  cell.append(el("small", { class: "verdict" }, cell.className));
}
