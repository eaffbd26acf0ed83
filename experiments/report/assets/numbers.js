// Means, intervals, tests, and how numbers are written.
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

// A mean over tasks with its 95 % interval over clips and p of its being zero: freemask/statistics.py once more, for
// views that a filter has changed. `student` holds Student's quantiles for 1, 2, ... degrees of freedom; of fewer than
// `shape` clips nothing is known of their skewness.
function estimate(values, groups, { student, shape }) {
  const sums = new Map(), counts = new Map(), n = values.length, middle = mean(values);
  values.forEach((value, k) => {
    sums.set(groups[k], (sums.get(groups[k]) || 0) + value);
    counts.set(groups[k], (counts.get(groups[k]) || 0) + 1);
  });
  const clips = sums.size, told = { mean: middle, range: null, n, clips, p: null };
  if (clips < 2) return told;
  const parts = [...sums].map(([group, sum]) => (sum - middle * counts.get(group)) / n);
  const worth = n ** 2 / [...counts.values()].reduce((all, count) => all + count ** 2, 0);
  const degrees = Math.min(student.length, Math.max(1, Math.floor(worth + 1e-9) - 1)), quantile = student[degrees - 1];
  const error = Math.sqrt(power(parts, 2) * clips / (clips - 1)), skew = parts.length < shape ? 0 : skewness(parts);
  const down = Math.max(quantile, widened(quantile, skew)) * error, up = Math.max(quantile, -widened(-quantile, skew)) * error;
  return { ...told, range: [middle - down, middle + up], p: chance(middle, error, skew, clips, degrees) };
}

const power = (parts, of) => parts.reduce((all, part) => all + part ** of, 0);

function skewness(parts) {
  const clips = parts.length, square = power(parts, 2) / clips;
  if (square === 0) return 0;
  return power(parts, 3) / clips / square ** 1.5 * Math.sqrt(clips - 1) / (clips - 2);
}

function widened(quantile, skew) {
  const inner = quantile - skew / 6, root = Math.cbrt(1 + skew * inner);
  return 3 * inner / (root ** 2 + root + 1);
}

function chance(value, error, skew, clips, degrees) {
  const least = 2 ** (1 - clips);
  if (value === 0) return 1;
  if (error === 0) return least;
  const t = value / error, corrected = t + skew * t ** 2 / 3 + skew ** 2 * t ** 3 / 27 + skew / 6;
  return Math.max(least, twoSided(Math.min(Math.abs(t), Math.max(0, corrected * Math.sign(t))), degrees));
}

// Of Student's t, for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).
function twoSided(t, degrees) {
  const angle = Math.atan(t / Math.sqrt(degrees)), cosine = Math.cos(angle), odd = degrees % 2;
  let term = odd ? cosine : 1, sum = 0;
  for (let k = odd; k < degrees; k += 2) {
    if (k > odd) term *= cosine ** 2 * (k - 1) / k;
    sum += term;
  }
  const within = odd ? (2 / Math.PI) * (angle + Math.sin(angle) * sum) : Math.sin(angle) * sum;
  return Math.max(0, 1 - within);
}

// After Holm, for the number of those that are known.
function holm(values) {
  const known = values.map((value, k) => [value, k]).filter(([value]) => value !== null).sort((a, b) => a[0] - b[0]);
  const found = values.map(() => null);
  let least = 0;
  known.forEach(([value, k], done) => {
    least = Math.max(least, Math.min(1, (known.length - done) * value));
    found[k] = least;
  });
  return found;
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
