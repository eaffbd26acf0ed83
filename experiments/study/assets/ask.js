// The questions of an item. `said` holds what is answered, by question; `changed` is told after every answer.
function questions(turn, said, changed) {
  const kinds = { rating: values.length > 12 ? slid : rated, ranking: ordered, paired: chosen };
  return study.criteria.map((criterion) => {
    const answer = (value) => {
      if (value === undefined) delete said[criterion.key];
      else said[criterion.key] = value;
      box.classList.toggle("answered", criterion.key in said);
      changed();
    };
    const box = el("fieldset", { data: { key: criterion.key } },
      el("legend", {}, el("b", {}, criterion.title || criterion.key), " ", criterion.ask),
      kinds[study.kind](criterion, turn, said[criterion.key], answer));
    box.classList.toggle("answered", criterion.key in said);
    return box;
  });
}

const radio = (name, value, checked, pick) => {
  const made = el("input", { type: "radio", name, value: String(value), checked });
  made.addEventListener("change", pick);
  return made;
};
const ends = (criterion) => el("div", { className: "ends" }, el("span", {}, criterion.low || ""), el("span", {}, criterion.high || ""));

const rated = (criterion, turn, now, answer) => [
  el("div", { className: "scale" }, values.map((value) =>
    el("label", {}, radio(criterion.key, value, now === value, () => answer(value)), el("span", {}, String(value))))),
  ends(criterion)];

function slid(criterion, turn, now, answer) {
  const last = values.length - 1, shown = el("output", {}, now === undefined ? "?" : String(now));
  const slider = el("input", { type: "range", min: 0, max: last, step: 1, ariaLabel: criterion.title || criterion.key,
    value: now === undefined ? Math.floor(last / 2) : values.findIndex((each) => each === now) });
  const take = () => { shown.textContent = String(values[slider.value]); answer(values[slider.value]); };
  for (const name of ["input", "pointerup", "change"]) slider.addEventListener(name, take);
  return [el("div", { className: "slid" }, slider, shown), ends(criterion)];
}

function chosen(criterion, turn, now, answer) {
  const picks = turn.entries.map((each, place) => [each.id, letter(place)]);
  if (study.tie) picks.push([null, "No difference"]);
  return el("div", { className: "picks" }, picks.map(([id, name]) =>
    el("label", {}, radio(criterion.key, id ?? "", now === id, () => answer(id)), el("span", {}, name))));
}

// Letters are clicked from the best to the worst; a second click takes one out again.
function ordered(criterion, turn, now, answer) {
  const order = now ? [...now] : [], ids = turn.entries.map((each) => each.id);
  const told = el("div", { className: "ends", role: "status" });
  const buttons = ids.map((id, place) => el("button", { type: "button", data: { id }, onclick: () => {
    const at = order.indexOf(id);
    if (at >= 0) order.splice(at, 1);
    else order.push(id);
    if (at < 0 && order.length === ids.length - 1) order.push(ids.find((each) => !order.includes(each)));
    show();
    answer(order.length === ids.length ? [...order] : undefined);
  } }));
  const show = () => {
    buttons.forEach((button, place) => {
      const at = order.indexOf(ids[place]);
      button.replaceChildren(el("b", {}, letter(place)), el("small", {}, at < 0 ? "–" : String(at + 1)));
      button.ariaPressed = String(at >= 0);
      button.ariaLabel = at < 0 ? `${letter(place)}, without a place yet` : `${letter(place)}, place ${at + 1}`;
    });
    const names = order.map((id) => letter(ids.indexOf(id)));
    told.textContent = names.length ? `best  ${names.join(" › ")}${names.length === ids.length ? "  worst" : " › …"}`
      : "Click the letters from the best to the worst.";
  };
  show();
  return [el("div", { className: "places" }, buttons), told];
}
