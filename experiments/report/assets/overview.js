// The first view: means, differences, the chosen metric drawn, its worst and best cases.
function overview(place) {
  if (!view.length) return place.replaceChildren(nothing());
  const lines = means(), column = db.columns.get(state.metric), many = db.core.variants.length > 1;
  const parts = [meansTable(lines), el("p", { class: "quiet" },
    "Mean over tasks and 95 % interval over clips (Student's t, the more cautious of plain and corrected for skewness); failed edits count as failed and enter no mean. Best means are marked, over the tasks that all variants have; that is not tested.")];
  const counts = lines.map((line) => line.n);
  if (Math.min(...counts) < Math.max(...counts)) {
    parts.push(el("p", { class: "notice" }, `The variants have ${Math.min(...counts)} to ${Math.max(...counts)} finished tasks: these means are not all over the same tasks. Paired differences are.`));
  }
  const others = lines.map((line) => line.index).filter((index) => index !== referenceIndex());
  const found = many && others.length && byVariant.has(referenceIndex())
    ? Object.fromEntries(differences(others, db.core.columns.map(({ name }) => name)).map((each, k) => [others[k], each])) : null;
  const table = found && pairedTable(lines, found);
  if (table) {
    const count = Object.values(found).reduce((sum, each) => sum + Object.keys(each).length, 0);
    parts.push(el("div", { class: "line" }, el("h2", {}, "Paired differences"), referenceChoice()), table, el("p", { class: "quiet" },
      `Only tasks that both finished, with 95 % intervals over clips; p: two-sided, of no difference, by the same t, corrected (Holm) for all ${plural(count, "comparison")} of this table. Called better or worse where that p is at most ${db.core.settled.rules.clear}. The pointer over a difference shows on how many tasks it is better.`));
  }
  if (column) {
    const drawn = el("div", { class: "charts" });
    later.add(() => drawn.append(...metricCharts(lines, column, table && found)));
    parts.push(el("h2", {}, `${column.name} ${arrow(column)} ${column.unit}`), el("p", { class: "quiet" }, column.description), drawn);
    parts.push(...extremes(column));
  }
  place.replaceChildren(...parts);
}

function metricCharts(lines, column, found) {
  const point = (line, { mean: at, range }, write) => ({ name: line.name, index: line.index, at, range, title: `${line.name}: ${write(at)} ${spelled(range, write)}` });
  const points = lines.filter((line) => line.means[column.name]).map((line) => point(line, line.means[column.name], format));
  const shown = points.length ? [figure("mean by variant", span(points, column.unit))] : [];
  const apart = found ? lines.filter((line) => found[line.index]?.[column.name]).map((line) => point(line, found[line.index][column.name], signed)) : [];
  if (apart.length) shown.push(figure(`difference to ${db.core.variants[referenceIndex()].name}`, span(apart, column.unit, true)));
  return shown;
}

function span(points, unit, zero = false) {
  const all = points.flatMap((p) => p.range || [p.at]).concat(zero ? [0] : []);
  const low = Math.min(...all), high = Math.max(...all), pad = (high - low || Math.abs(high) || 1) * 0.06;
  return chart(points, low - pad, high + pad, whiskers, { unit, zero, most: 600 });
}

const figure = (caption, ...drawn) => el("figure", {}, el("figcaption", {}, caption), drawn);

function referenceChoice() {
  const chosen = referenceIndex();
  return el("label", {}, "compared with ", el("select", { on: { change: (event) => change({ reference: event.target.value }) } },
    db.core.variants.map((each, k) => el("option", { value: each.name, selected: k === chosen }, each.name))));
}

function extremes(column) {
  const { rows } = measured(view, column.name);
  if (rows.length < 2) return [];
  const sorted = ordered(rows, "worst", column.name), wide = document.querySelector("main").clientWidth;
  const across = Math.max(1, Math.floor((wide + SPACE) / (CARD + SPACE))), few = Math.min(Math.max(2, across), Math.floor(sorted.length / 2));
  const width = Math.floor((wide - SPACE * (across - 1)) / across);
  const strip = (title, order, chosen) => [
    el("div", { class: "line" }, el("h2", {}, title), el("a", { href: "#", on: { click: (event) => {
      event.preventDefault();
      change({ tab: "cases", order });
    } } }, "all in this order")),
    el("div", { class: "strip" }, chosen.map((row) => card(row, sorted, width))),
  ];
  const names = column.up === null ? ["Lowest", "Highest"] : ["Worst cases", "Best cases"];
  return [...strip(names[0], "worst", sorted.slice(0, few)), ...strip(names[1], "best", sorted.slice(-few).reverse())];
}

const nothing = () => el("p", { class: "notice" }, "No edit fits these filters. ",
  el("button", { type: "button", on: { click: reset } }, "Show all again"));
