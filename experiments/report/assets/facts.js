// What the page rests on: metrics, code, and how to use it.
function basis(place) {
  const { core } = db;
  const versions = new Set(core.variants.flatMap((each) => Object.entries(each.about.versions || {}).map(([name, version]) => `${name} ${version}`)));
  place.replaceChildren(
    el("h2", {}, "Metrics"), el("dl", {}, core.columns.flatMap((column) => [el("dt", {}, `${column.name} ${arrow(column)} ${column.unit}`), el("dd", {}, column.description || "no description", column.needs ? el("small", {}, ` (needs ${column.needs})`) : null)])),
    el("h2", {}, "Made by"), el("p", {}, core.commits.filter(Boolean).map((each) => `commit ${each.replace("+", " with local changes")}`).join(", ") || "no commit known"),
    el("p", { class: "quiet" }, [...versions].join(", ")), el("p", { class: "quiet" }, `page of ${core.made.slice(0, 19).replace("T", " ")} UTC`),
    el("h2", {}, "Keys"), el("p", { class: "quiet" }, "/ to search; in a case ← → for the one before and the next, space to play, comma and full stop for single frames, s for the slider, Esc to close. The address holds the filters: it can be kept as a bookmark."));
}
