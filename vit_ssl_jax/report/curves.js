"use strict";
// What is computed from the curves of a run before they are drawn: no page is needed.

// A value at every step, by linear interpolation of a curve {step, y} through (0, 0).
function convert(steps, curve) {
  const xs = [0], ys = [0];
  curve.step.forEach((step, i) => {
    if (curve.y[i] !== null && step > 0) { xs.push(step); ys.push(curve.y[i]); }
  });
  let at = 1;
  return steps.map((step) => {
    if (xs.length < 2) return null;
    while (at < xs.length - 1 && xs[at] < step) at += 1;
    while (at > 1 && xs[at - 1] > step) at -= 1;
    const part = (step - xs[at - 1]) / (xs[at] - xs[at - 1]);
    return ys[at - 1] + part * (ys[at] - ys[at - 1]);
  });
}

// Exponential mean with the weight of the start taken out; null stays null.
function smooth(values, weight) {
  if (!weight) return values;
  let mean = 0, left = 1;
  return values.map((value) => {
    if (value === null) return null;
    left *= weight;
    mean += ((1 - weight) / (1 - left)) * (value - mean);
    return mean;
  });
}

// The values of a run's curve along an axis: {x, y, raw, lo, hi}; null without one.
function along(run, metric, axis, weight) {
  const curve = run.curves[metric];
  if (!curve) return null;
  let x = curve.step;
  if (axis !== "step") {
    if (!run.axes[axis]) return null;
    x = convert(curve.step, run.axes[axis]);
  }
  return { x, y: smooth(curve.y, weight), raw: curve.y, lo: curve.lo, hi: curve.hi };
}

// The last number of a list, null where there is none.
function last(values) {
  for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] !== null) return values[i];
  return null;
}

function median(values) {
  const sorted = values.filter((v) => v !== null).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// A number as text: four digits, thousands parted.
function show(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e12) return value.toLocaleString("en");
  return size >= 1e5 || size < 1e-3 ? value.toExponential(3) : String(+value.toPrecision(4));
}

// A value of a config as text: what isn't there and what is empty look different.
function showSetting(value) {
  return value === undefined ? "–" : typeof value === "number" ? String(value) : JSON.stringify(value);
}

// Hours as text.
function duration(hours) {
  if (hours === null || hours === undefined) return "";
  if (hours < 1 / 60) return `${show(3600 * hours)} s`;
  return hours < 1 ? `${(60 * hours).toFixed(1)} min` : `${hours.toFixed(2)} h`;
}

// Rows of a table of dicts beside each other: those keys whose values differ, or all.
function compare(dicts, onlyDifferent) {
  const keys = [...new Set(dicts.flatMap((dict) => Object.keys(dict)))].sort();
  const text = (value) => (value === undefined ? undefined : JSON.stringify(value));
  const differs = (key) => new Set(dicts.map((dict) => text(dict[key]))).size > 1;
  return keys.filter((key) => !onlyDifferent || differs(key))
    .map((key) => ({ key, values: dicts.map((dict) => dict[key]), differs: differs(key) }));
}

// Of pictures by step, the newest that was there at a step; the first before that.
function pictureAt(panel, step) {
  let found = panel[0];
  for (const picture of panel) if (picture.step <= step) found = picture;
  return found;
}

// A span of an axis, its middle kept or moved: key is "+", "-", "ArrowLeft" or "ArrowRight".
function zoomed([from, to], key) {
  const wide = to - from, middle = from + wide / 2;
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const by = (key === "ArrowLeft" ? -0.2 : 0.2) * wide;
    return [from + by, to + by];
  }
  const half = (key === "-" ? 0.8 : 0.3125) * wide;
  return [middle - half, middle + half];
}

if (typeof module !== "undefined") {
  module.exports = { convert, smooth, along, last, median, show, showSetting, duration, compare, pictureAt, zoomed };
}
