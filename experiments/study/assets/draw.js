// What a rater sees, in which order and with which sides: drawn from the code by the same arithmetic as in drawn.py.
const tidy = (rater) => rater.normalize("NFC").trim();
const fits = (rater) => /^[\p{L}\p{M}\p{N} ._-]{1,40}$/u.test(rater);

function generator(seed) {
  let state = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(seed)) state = Math.imul(state ^ byte, 0x01000193) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

function shuffled(draw, items) {
  const found = [...items];
  for (let last = found.length - 1; last > 0; last--) {
    const other = draw() % (last + 1);
    [found[last], found[other]] = [found[other], found[last]];
  }
  return found;
}

function spread(items) {
  const rest = [...items], found = [];
  while (rest.length) {
    const before = found.length ? found[found.length - 1].group : null;
    found.push(...rest.splice(Math.max(0, rest.findIndex((each) => each.group !== before)), 1));
  }
  return found;
}

function turns(study, rater) {
  const draw = generator(`${study.study}\n${rater}`);
  const items = new Map(study.items.map((each) => [each.id, each]));
  const taken = spread(shuffled(draw, study.stacks.map((stack) => items.get(stack[draw() % stack.length]))));
  const plain = taken.filter((each) => !each.say), half = Math.max(study.repeats, Math.floor(plain.length / 2));
  const again = shuffled(draw, plain.slice(0, half)).slice(0, study.repeats);
  const widest = Math.max(...study.items.map((each) => each.entries.length));
  const sides = shuffled(draw, [...Array(widest).keys()]);
  const middle = taken.length / 2;
  const later = (item, k) => Math.max(middle + ((k + 1) * middle) / again.length, taken.indexOf(item) + 1.5);
  const placed = [
    ...taken.map((item, k) => ({ at: k, item, again: false })),
    ...again.map((item, k) => ({ at: later(item, k), item, again: true })),
  ].sort((a, b) => a.at - b.at);
  return placed.map(({ item, again: twice }) => {
    const shown = sides.filter((side) => side < item.entries.length).map((side) => item.entries[side]);
    return { item, again: twice, entries: twice ? shown.reverse() : shown };
  });
}
