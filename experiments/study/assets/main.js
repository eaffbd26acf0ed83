// The way through the study: a first page, one page for each item, a last page.
const page = document.getElementById("page");
let stage = null, waiting = null, leave = () => {};

function show(made) {
  leave();
  leave = () => {};
  page.replaceChildren(made);
  scrollTo(0, 0);
  document.documentElement.dataset.ready = "";
}

function firstPage() {
  const before = kept.rater(), linked = new URLSearchParams(location.hash.slice(1)).get("code");
  const given = linked || (before && !kept.of(before)?.handed ? before : newCode());
  const code = el("input", { value: tidy(given), maxLength: 40, id: "code", autocomplete: "off", spellcheck: false });
  const consent = el("input", { type: "checkbox", id: "consent" });
  const start = el("button", { className: "main", id: "begin" }), told = el("p", { className: "quiet", role: "status" });
  const look = () => {
    const state = kept.of(tidy(code.value)), done = state ? state.answers.filter((each) => complete(each.values)).length : 0;
    consent.checked ||= Boolean(state);
    start.textContent = state ? "Continue" : "Begin";
    start.disabled = !consent.checked || !fits(tidy(code.value));
    told.textContent = !fits(tidy(code.value)) ? "A code has up to 40 letters, digits, blanks and . _ -"
      : state?.handed ? "The answers with this code have been handed in."
      : state ? `${done} of ${state.answers.length} are answered with this code in this browser.` : "";
  };
  code.addEventListener("input", look);
  consent.addEventListener("change", look);
  const count = turns(study, "a rater").length;
  const form = el("form", { className: "text", onsubmit: (event) => { event.preventDefault(); begin(tidy(code.value)); } },
    el("h1", {}, "A study of edited videos"),
    el("p", {}, WORDS.what(count)),
    el("h2", {}, many(study.criteria.length, "The question", "The questions").replace(/^\d+ /, "")),
    el("dl", { className: "asked" }, study.criteria.flatMap((each) => [el("dt", {}, each.title || each.key), el("dd", {}, each.ask)])),
    el("h2", {}, "Before you begin"),
    el("ul", {},
      el("li", {}, `It takes about ${many(study.minutes, "minute", "minutes")}. Please use a computer or a tablet with a large screen.`),
      el("li", {}, "The videos play in a loop, without sound. You may stop them, slow them down, or see them on the whole screen."),
      el("li", {}, "There are no right answers: we want your own impression. A few items only check that texts are read and answers are meant."),
      el("li", {}, "You may go back, and you may stop: your answers stay in this browser, and go on there with the same code. Until you hand them in at the end nobody else sees them."),
      el("li", {}, `Keys: Space plays and stops, Tab and the arrows choose${study.kind === "rating" ? "" : ", or the letters of the videos"}; Enter goes on.`)),
    el("p", { className: "field" }, el("label", { htmlFor: "code" }, "Your code "), code,
      el("small", {}, "Leave it as it is, unless you were given one. It need not be your name.")),
    el("p", { className: "field" }, el("label", {}, consent,
      " I take part of my own free will. My answers may be analysed and published without my name; I may stop at any time.")),
    el("div", { className: "buttons" }, start), told);
  look();
  show(form);
}

function begin(rater) {
  const state = kept.of(rater) || { rater, started: new Date().toISOString(), at: 0,
    answers: turns(study, rater).map(() => ({ values: {}, seconds: 0 })) };
  kept.keep(state);
  const open = state.answers.findIndex((each) => !complete(each.values));
  itemPage(state, open < 0 ? state.answers.length : Math.min(open, state.at));
}

const complete = (said) => study.criteria.every((each) => each.key in said);

const stageOf = ({ item, entries }) => new Stage([
  ...(item.source ? [{ label: "Original", file: item.source, original: true }] : []),
  ...entries.map((each, place) => ({ label: entries.length > 1 ? letter(place) : "Edited", file: each.file }))]);

function itemPage(state, at) {
  const every = turns(study, state.rater), turn = every[at];
  stage?.close();
  stage = null;
  state.at = Math.min(at, every.length - 1);
  kept.keep(state);
  if (!turn) { show(endPage(state, () => itemPage(state, every.length - 1))); return; }
  const answer = state.answers[at], since = performance.now();
  stage = waiting?.at === at && waiting.rater === state.rater ? waiting.stage : stageOf(turn);
  if (waiting && waiting.stage !== stage) waiting.stage.close();
  waiting = null;
  const lacks = el("span", { className: "quiet", role: "status" });
  const next = el("button", { className: "main", id: "next" }, at === every.length - 1 ? "Finish ›" : "Next ›");
  const changed = () => {
    const open = study.criteria.filter((each) => !(each.key in answer.values)).map((each) => each.title || each.key);
    next.disabled = open.length > 0;
    lacks.textContent = open.length ? `still open: ${open.join(", ")}` : "";
    kept.keep(state);
  };
  const asked = questions(turn, answer.values, changed);
  const { text, before, say } = turn.item;
  const form = el("form", { className: "item", onsubmit: (event) => { event.preventDefault(); if (!next.disabled) itemPage(state, at + 1); } },
    el("div", { className: "progress" }, el("progress", { max: every.length, value: at }),
      el("span", {}, `${at + 1} of ${every.length}`), el("small", {}, `code ${state.rater}`)),
    say ? el("p", { className: "notice told" }, say) : null,
    el("div", { className: "wanted" }, el("p", {}, el("span", { className: "quiet" }, "The text asks for  "), el("b", {}, text)),
      before && before !== text ? el("p", { className: "quiet" }, "The original was described as  ", before) : null),
    el("div", { className: `both ${study.kind}` }, stage.root,
      el("section", { className: "asked", ariaLabel: "Questions", tabIndex: -1 }, asked,
        el("div", { className: "buttons" },
          el("button", { type: "button", id: "back", disabled: at === 0, onclick: () => itemPage(state, at - 1) }, "‹ Back"), next, lacks))));
  show(form);
  form.querySelector(".asked").focus({ preventScroll: true });  // the next Tab reaches the first question
  changed();
  leave = () => { answer.seconds += (performance.now() - since) / 1000; kept.keep(state); };
  const shown = stage;
  shown.ready.then(() => {  // what comes next is fetched meanwhile
    if (stage === shown && every[at + 1] && !waiting) {
      waiting = { at: at + 1, rater: state.rater, stage: stageOf(every[at + 1]) };
    }
  });
}

addEventListener("keydown", (event) => {
  const { target, key } = event;
  const picked = target.type === "radio" && target.checked, busy = /^(BUTTON|INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && !picked;
  if (!stage || event.ctrlKey || event.altKey || event.metaKey) return;
  if (key === " " && !busy) { event.preventDefault(); stage.toggle(); }
  const place = study.kind === "rating" || key.length !== 1 ? -1 : LETTERS.indexOf(key.toUpperCase());
  const box = target.closest?.("fieldset") || document.querySelector("fieldset:not(.answered)");
  if (place >= 0) box?.querySelectorAll(".places button, .picks input")[place]?.click();
  if (key === "Enter" && !busy && target.tagName !== "INPUT") { event.preventDefault(); document.getElementById("next")?.click(); }
});
addEventListener("pagehide", () => leave());
firstPage();
