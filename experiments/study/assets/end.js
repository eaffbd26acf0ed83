// What is handed in, and how: to the server that the page came from, where it takes answers, otherwise as a file.
const record = (state) => ({
  what: "answers of a video study", study: study.study, rater: state.rater, consent: true,
  started: state.started, finished: state.finished, comment: state.comment || "",
  answers: turns(study, state.rater).map((turn, k) => ({
    item: turn.item.id, again: turn.again, order: turn.entries.map((each) => each.id),
    values: state.answers[k].values, seconds: Math.round(10 * state.answers[k].seconds) / 10,
  })),
});

const fileName = (rater) => `answers-${rater.replace(/[^\p{L}\p{N}._-]+/gu, "-")}.json`;

function saveFile(state) {
  const address = URL.createObjectURL(new Blob([JSON.stringify(record(state), null, 1)], { type: "application/json" }));
  const link = el("a", { href: address, download: fileName(state.rater) });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

// "sent"; "" where nobody takes them; otherwise why they were not taken.
async function send(state) {
  if (!location.protocol.startsWith("http")) return "";
  try {
    const answer = await fetch("answers", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify(record(state)) });
    if (answer.ok) return "sent";
    return [400, 403, 409, 413, 503].includes(answer.status) ? await answer.text() : "";
  } catch {
    return "";
  }
}

function endPage(state, back) {
  const comment = el("textarea", { rows: 3, maxLength: 2000, value: state.comment || "", ariaLabel: "Comment" });
  comment.addEventListener("input", () => { state.comment = comment.value; kept.keep(state); });
  const said = el("p", { role: "status", id: "said" });
  const copy = el("button", { type: "button", hidden: true, onclick: () => saveFile(state) });
  const hand = el("button", { type: "button", className: "main", id: "hand", onclick: async () => {
    hand.disabled = true;
    state.finished = new Date().toISOString();
    kept.keep(state);
    const how = await send(state);
    if (how === "sent") {
      said.textContent = "Your answers have arrived. Thank you! You can close this page.";
    } else {
      saveFile(state);
      const why = how ? `They were not taken (${how}). ` : "";
      said.textContent = `${why}Your answers are saved as ${fileName(state.rater)}, where your browser keeps downloads. `
        + "Please send this file to whoever asked you. Thank you!";
      hand.disabled = false;
    }
    Object.assign(state, { handed: true });
    kept.keep(state);
    hand.hidden = how === "sent" || !location.protocol.startsWith("http");
    copy.textContent = how === "sent" ? "Save a copy" : "Save the file again";
    copy.hidden = false;
  } }, location.protocol.startsWith("http") ? "Send my answers" : "Save my answers");
  return el("div", { className: "text" },
    el("h1", {}, "That was all"),
    el("p", {}, "You have answered everything. Is there anything that we should know?"),
    comment,
    el("div", { className: "buttons" }, el("button", { type: "button", onclick: back }, "‹ Back"), hand, copy), said);
}
