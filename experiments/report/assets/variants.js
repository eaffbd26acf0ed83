// What each variant is: where it differs, and on demand the whole of it, with the command that repeats it.
let made = null, asked = "";  // asked: the name of the variant to unfold

function openVariant(name) {
  asked = name;
  change({ tab: "variants" });
}

function variants(place) {
  if (made) {
    place.replaceChildren(...told(made));
    place.querySelector("details[open]")?.scrollIntoView({ block: "center" });
    asked = "";
    return;
  }
  place.replaceChildren(el("p", { class: "quiet" }, "…"));
  freemask.need("made").then((found) => { made = found; if (state.tab === "variants") redraw(); },
    (error) => place.replaceChildren(el("p", { class: "notice bad" }, error.message)));
}

function told({ keys, cells, same, each }) {
  const shown = db.core.variants.map((_, index) => index).filter(shownVariant), many = db.core.variants.length > 1;
  return [
    el("h2", {}, keys.length ? "What differs" : many ? "Nothing that is recorded differs" : "What it is"),
    ...(keys.length ? differencesTable(keys, cells, shown) : []),
    same.length ? el("p", {}, many ? "The same for all: " : null, same.flatMap(([key, value], k) => [k ? ", " : null, el("span", { class: "quiet" }, `${key} `), el("b", {}, value)])) : null,
    el("h2", {}, many ? "Each of them whole" : "The whole of it"), ...shown.map((index) => wholeOf(index, each[index])),
  ].filter(Boolean);
}

function differencesTable(keys, cells, shown) {
  const base = cells[referenceIndex()], many = shown.length > 1;
  const cell = (index, k) => {
    const value = cells[index][k];
    if (value === null) return el("td", { class: "quiet" }, "not recorded");
    return el("td", { class: many && value !== base[k] ? "other" : null }, value || "–");
  };
  return [boxed("What differs", el("table", { class: "numbers words" },
    el("thead", {}, el("tr", {}, ["variant", ...keys].map((key) => el("th", { scope: "col" }, breakable(key))))),
    el("tbody", {}, shown.map((index) => el("tr", {}, nameCell({ index, name: db.core.variants[index].name }), keys.map((_, k) => cell(index, k))))))),
  many ? el("p", { class: "quiet" }, `Marked: other than ${db.core.variants[referenceIndex()].name}. What follows from an option is not listed; – stands for what a variant does not have.`) : null];
}

function wholeOf(index, { command, whole: all, config, identity }) {
  const { name, about, base } = db.core.variants[index], tell = (key) => (about[key] || []).join(", ");
  const facts = [["identity", identity || tell("run")], ["weights", tell("model")], ["device", tell("device")], ["dtype", tell("dtype")], ["folder", readable(base)]].filter((pair) => pair[1]);
  const fold = () => [
    ...text(`The command that repeats it${all ? " alone" : ""}`, command), ...(all ? text("The command of the whole run", all) : []),
    ...text("The whole configuration", config), el("dl", {}, facts.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]))];
  const made = el("details", { class: "problem", "data-variant": name }, el("summary", {}, swatch(index), el("b", {}, name)));
  made.addEventListener("toggle", () => { if (made.open && made.children.length === 1) made.append(...fold()); });
  made.open = db.core.variants.length === 1 || name === asked;
  return made;
}

function text(title, given) {
  if (!given) return [el("h3", {}, title), el("p", { class: "quiet" }, "not recorded")];
  const pre = el("pre", {}, given), button = el("button", { type: "button", class: "copy", on: { click: () => copy(pre, button) } }, "copy");
  return [el("h3", {}, title, " ", button), pre];
}

// Where the browser keeps its clipboard to itself, the text is at least chosen.
function copy(pre, button) {
  const choose = () => { getSelection().selectAllChildren(pre); return document.execCommand("copy"); };
  const written = navigator.clipboard ? navigator.clipboard.writeText(pre.textContent).then(() => true, choose) : Promise.resolve(choose());
  written.then((done) => { button.textContent = done ? "copied" : "chosen: Ctrl-C"; });
}
