// Elements, and what the pages say.
const el = (tag, given = {}, ...inside) => {
  const { data = {}, ...rest } = given, made = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) name in made ? (made[name] = value) : made.setAttribute(name, value);
  Object.assign(made.dataset, data);
  made.append(...inside.flat().filter((each) => each !== null && each !== undefined));
  return made;
};
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const letter = (place) => LETTERS[place];
const many = (count, one, more) => `${count} ${count === 1 ? one : more}`;
const { values } = study;
const withSource = study.items.some((each) => each.source);

const WORDS = {
  rating: {
    unit: ["edited video", "edited videos"],
    what: (count) => `You will see ${many(count, "short video", "short videos")}, one after the other. Each was made by a `
      + `computer program that was given an original clip and a text, and was to change the clip as the text says. `
      + (withSource ? "The original is shown beside it. " : "")
      + `For each, please answer ${many(study.criteria.length, "question", "questions")} on a scale from ${values[0]} to `
      + `${values[values.length - 1]}.`,
  },
  ranking: {
    unit: ["set of videos", "sets of videos"],
    what: (count) => `You will see ${many(count, "set", "sets")} of short videos. The videos of a set were made by computer `
      + `programs that were given the same original clip and the same text, and were to change the clip as the text says. `
      + (withSource ? "The original is shown with them. " : "")
      + "For each question, please put the videos of the set in order, from the best to the worst.",
  },
  paired: {
    unit: ["pair of videos", "pairs of videos"],
    what: (count) => `You will see ${many(count, "pair", "pairs")} of short videos. Both videos of a pair were made by computer `
      + `programs that were given the same original clip and the same text, and were to change the clip as the text says. `
      + (withSource ? "The original is shown with them. " : "")
      + "For each question, please say which of the two is better.",
  },
}[study.kind];
