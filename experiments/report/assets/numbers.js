// Means, intervals and how numbers are written.
const DRAWS = 2000, MOST_DRAWN = 2000, ENOUGH = 6;  // as evaluation/statistics.py has them

const format = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 0.01) return value.toPrecision(2);
  return Math.abs(value) >= 10 ? value.toFixed(2) : value.toFixed(3);
};
const signed = (value) => (value >= 0 ? "+" : "−") + format(Math.abs(value));
const seconds = (value) => {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value < 100) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  return value < 6000 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
};
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

// The same interval for the same values, whenever the page is opened.
const randomly = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

// 95 % of the mean, whole groups being drawn together; null for fewer than two groups. Percentiles of a bootstrap,
// and for very many groups the normal interval, which is then the same.
function interval(values, groups) {
  const places = new Map(), sums = [], counts = [];
  values.forEach((value, index) => {
    const group = groups[index];
    if (!places.has(group)) { places.set(group, sums.length); sums.push(0); counts.push(0); }
    const place = places.get(group);
    sums[place] += value;
    counts[place] += 1;
  });
  const many = sums.length;
  if (many < 2) return null;
  return many > MOST_DRAWN ? normal(sums, counts, values) : drawn(sums, counts);
}

function normal(sums, counts, values) {
  const middle = mean(values);
  const square = sums.reduce((all, sum, g) => all + (sum - middle * counts[g]) ** 2, 0);
  const wide = (1.96 * Math.sqrt(square)) / values.length;
  return [middle - wide, middle + wide];
}

function drawn(sums, counts) {
  const random = randomly(0), many = sums.length, means = new Float64Array(DRAWS);
  for (let draw = 0; draw < DRAWS; draw++) {
    let sum = 0, count = 0;
    for (let k = 0; k < many; k++) {
      const pick = Math.floor(random() * many);
      sum += sums[pick];
      count += counts[pick];
    }
    means[draw] = sum / count;
  }
  means.sort();
  const at = (share) => {
    const place = share * (DRAWS - 1), low = Math.floor(place);
    return means[low] + (place - low) * (means[Math.min(low + 1, DRAWS - 1)] - means[low]);
  };
  return [at(0.025), at(0.975)];
}

// Work that can wait, in slices that leave the page usable; work of an earlier view is dropped.
const later = (() => {
  let queue = [], timer = 0;
  const slice = () => {
    const until = performance.now() + 14;
    while (queue.length && performance.now() < until) queue.shift()();
    timer = queue.length ? setTimeout(slice, 0) : 0;
    if (!timer) document.documentElement.dataset.settled = Math.round(performance.now());
  };
  return {
    clear: () => {
      queue = [];
      timer = timer || setTimeout(slice, 0);
    },
    add: (work) => {
      queue.push(work);
      delete document.documentElement.dataset.settled;
      timer = timer || setTimeout(slice, 0);
    },
  };
})();
