// What was answered, kept in this browser after every click; where it keeps nothing, in memory as long as the page is open.
const kept = (() => {
  const memory = new Map(), place = (name) => `study ${study.study} ${name}`;
  const read = (name) => {
    try {
      return JSON.parse(localStorage.getItem(place(name)) ?? memory.get(place(name)) ?? "null");
    } catch {
      return JSON.parse(memory.get(place(name)) ?? "null");
    }
  };
  const write = (name, value) => {
    memory.set(place(name), JSON.stringify(value));
    try {
      localStorage.setItem(place(name), JSON.stringify(value));
    } catch { /* memory has it */ }
  };
  return {
    rater: () => read("last"),
    of: (rater) => read(`rater ${rater}`),
    keep: (state) => { write(`rater ${state.rater}`, state); write("last", state.rater); },
  };
})();

const newCode = () => {
  const signs = "ABCDEFGHJKMNPQRSTUVWXYZ23456789";
  return [...crypto.getRandomValues(new Uint8Array(6))].map((each) => signs[each % signs.length]).join("");
};
