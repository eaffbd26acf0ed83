// What the edits cost: seconds by stage, memory, and quality against time.
function costs(place) {
  if (!view.length) return place.replaceChildren(nothing());
  const lines = means().filter((line) => line.n);
  if (!lines.length) return place.replaceChildren(el("p", { class: "notice" }, "None of these edits is done."));
  const stages = db.stages;
  for (const line of lines) {
    const done = line.rows.filter((row) => db.rows.done[row]);
    line.stages = stages.map((name) => mean(done.map((row) => db.core.stages[name][row] || 0)));
    line.total = line.stages.reduce((a, b) => a + b, 0);
  }
  const all = lines.reduce((sum, line) => sum + line.total * line.edits, 0);
  place.replaceChildren(
    el("p", {}, `${seconds(all)} of work in ${plural(lines.reduce((sum, line) => sum + line.edits, 0), "finished edit")}.`),
    figure("seconds per edit, by stage", stacked(lines, stages)), legend(stages.map((name, k) => [stageInk(k), name])),
    el("div", { class: "charts" }, memory(lines, "rss", "highest peak of host memory"), memory(lines, "gpu", "highest peak of GPU memory"),
      against(lines)),
    stageTable(lines, stages));
}

const STAGE_INKS = ["#9aa5b1", "#5b8def", "#3aa17e", "#e0a030", "#c65b7c", "#8a63b8", "#4bb3c8", "#a0725a", "#7d9c3a", "#55606e"];
const stageInk = (k) => STAGE_INKS[k % STAGE_INKS.length];

function stacked(lines, stages) {
  const high = Math.max(...lines.map((line) => line.total)) || 1;
  const mark = (x, y, line) => {
    let at = 0;
    const bars = line.stages.map((value, k) => {
      const from = x(at);
      at += value;
      return draw("rect", { x: from, y: y - 8, width: Math.max(0, x(at) - from), height: 16, fill: stageInk(k) },
        draw("title", {}, `${line.name}, ${stages[k]}: ${seconds(value)}`));
    });
    return [...bars, draw("text", { x: x(at) + 7, y: y + 4 }, seconds(line.total))];
  };
  return chart(lines.map((line) => ({ ...line, title: line.name })), 0, high, mark, { most: 980, unit: "seconds" });
}

const legend = (entries) => el("p", { class: "legend" }, entries.map(([color, name]) =>
  el("span", {}, el("i", { class: "swatch", style: { background: color } }), name)));

function memory(lines, key, caption) {
  const known = lines.filter((line) => line[key] !== null);
  if (!known.length) return null;
  const mark = (x, y, line) => [
    draw("rect", { x: x(0), y: y - 7, width: Math.max(1, x(line[key]) - x(0)), height: 14, fill: ink(line.index), opacity: 0.85 }),
    draw("text", { x: x(line[key]) + 7, y: y + 4 }, `${line[key].toFixed(2)} GB`)];
  return figure(caption, chart(known.map((line) => ({ ...line, title: line.name })), 0, Math.max(...known.map((line) => line[key])) || 1, mark, { most: 600, unit: "GB" }));
}

function against(lines) {
  const column = db.columns.get(state.metric);
  const points = column ? lines.filter((line) => line.means[column.name]).map((line) => {
    const { mean: y, range } = line.means[column.name];
    return { name: line.name, index: line.index, x: line.seconds, y, range, title: `${line.name}: ${format(y)} ${spelled(range)} in ${seconds(line.seconds)}` };
  }) : [];
  if (!points.length) return null;
  const drawn = scatter(points, { across: "seconds per edit", up: `${column.name} ${column.unit}` });
  return figure(`${column.name} ${arrow(column)} against time`, drawn, drawn.width.baseVal.value < NARROW ? legend(points.map((p) => [ink(p.index), p.name])) : null);
}

function stageTable(lines, stages) {
  const heads = ["variant", "n", ...stages.map((name) => `${name} s`), "total s"];
  return el("details", {}, el("summary", {}, "the same as numbers"), boxed("the same as numbers", el("table", { class: "numbers" },
    el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, lines.map((line) => el("tr", {}, nameCell(line), el("td", {}, String(line.n)),
      [...line.stages, line.total].map((value) => el("td", {}, value.toFixed(2)))))))));
}
