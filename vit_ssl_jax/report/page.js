"use strict";
// Draws the page of the data in it, and with LIVE again whenever that has changed.

let data = JSON.parse(document.getElementById("data").textContent);
let pictures = JSON.parse(document.getElementById("picture-data").textContent);
const hidden = new Set();  // names of runs that are not drawn
const charts = new Map();  // metric -> its figure
const byId = (id) => document.getElementById(id);
const DASHES = ["solid", "dot", "dash", "longdash", "dashdot", "longdashdot"];
const BUTTONS = [  // key, text and name of each
  ["ArrowLeft", "‹", "move left"], ["ArrowRight", "›", "move right"], ["+", "+", "zoom in"],
  ["-", "−", "zoom out"], ["0", "⤢", "show all"], ["Enter", "▣", "large or small"],
];
const COLOURS = 8;
const EVERY = 10000;  // milliseconds between looks at a run that goes on

// An element with properties and children; text is text, never markup.
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && key !== "style") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function table(head, rows, label) {
  const body = rows.map((row) => el("tr", {}, ...row.map((cell, i) =>
    el(i ? "td" : "th", i ? {} : { scope: "row" }, cell instanceof Node ? cell : show(cell)))));
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": label },
    el("table", {}, el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, ...body)));
}

function fill(id, ...children) { byId(id).replaceChildren(...children); }

// Colour by repetitions, dash by which of them.
function styleOf(run) {
  const same = data.runs.filter((other) => other.group === run.group);
  const groups = new Set(data.runs.map((other) => other.group)).size;
  const index = groups > 1 ? run.group : data.runs.indexOf(run);
  const nth = groups > 1 ? same.indexOf(run) + Math.floor(run.group / COLOURS) : Math.floor(index / COLOURS);
  const colours = getComputedStyle(document.documentElement);
  return { colour: colours.getPropertyValue(`--c${index % COLOURS}`).trim(), dash: DASHES[nth % DASHES.length] };
}

function swatch(run) {
  const { colour, dash } = styleOf(run);
  const line = { solid: "solid", dot: "dotted" }[dash] || "dashed";
  const made = el("span", { className: "swatch", "aria-hidden": "true" });
  made.style.borderTopColor = colour;
  made.style.borderTopStyle = line;
  return made;
}

function progress(run) {
  const done = run.steps && run.step >= run.steps;
  if (done) return "finished";
  const ago = run.written ? Date.now() / 1000 - run.written : null;
  const said = run.steps ? `${Math.floor((100 * run.step) / run.steps)} %` : "unfinished";
  if (!LIVE || ago === null) return said;
  return `${said}, written ${ago < 120 ? `${Math.max(0, Math.round(ago))} s` : `${Math.round(ago / 60)} min`} ago`;
}

function drawRuns() {
  const rows = data.runs.map((run, i) => {
    const box = el("input", { type: "checkbox", id: `show-${i}`, checked: !hidden.has(run.name) });
    box.addEventListener("change", () => {
      hidden[box.checked ? "delete" : "add"](run.name);
      redraw();
    });
    const name = el("label", {}, box, swatch(run), run.name);
    const of = (metric) => run.curves[metric];
    const axis = (key) => (run.axes[key] ? last(run.axes[key].y) : null);
    const wait = of("perf/data_wait_frac");
    return [name, run.recipe, run.steps ? `${show(run.step)} of ${show(run.steps)}` : run.step,
      progress(run), axis("epochs"), axis("images"), duration(axis("hours")),
      of("perf/img_per_sec") ? median(of("perf/img_per_sec").y) : null,
      wait ? `${(100 * (median(wait.y) || 0)).toFixed(1)} %` : null,
      run.last["train/loss"]];
  });
  fill("run-table", table(["run", "recipe", "steps", "state", "epochs", "images seen", "time",
    "images/s (median)", "data wait (median)", "last loss"], rows, "Runs"));
  const alarms = data.runs.filter((run) => run.alarms.length).map((run) =>
    el("p", { className: "note" }, `${run.name}: the alarm for collapse began at step ${run.alarms.map(show).join(", ")}`));
  fill("alarms", ...alarms);
}

// A table of dicts beside each other, of one property of the runs.
function beside(id, property, label, onlyDifferent, none) {
  const having = data.runs.filter((run) => Object.keys(run[property]).length);
  const rows = compare(having.map((run) => run[property]), onlyDifferent);
  if (!having.length || !rows.length) return fill(id, el("p", {}, none));
  const alike = !onlyDifferent && having.length > 1 && rows.every((row) => !row.differs);
  const shown = alike ? having.slice(0, 1) : having;
  const head = ["", ...shown.map((run) => (alike ? "all runs" : run.name))];
  fill(id, table(head, rows.map((row) => [row.key, ...row.values.slice(0, shown.length).map(showSetting)]), label));
}

function drawEvaluations() {
  const rows = (wanted) => data.evaluations.filter(wanted).map((row) => [
    row.recipe, row.settings, [row.evaluation, row.metric].filter(Boolean).join("/"), row.steps, row.runs,
    row.values.map(show).join("  "), row.result,
    row.published ? `${row.published}${row.source ? ` (${row.source})` : ""}` : ""]);
  const head = ["recipe", "settings", "metric", "steps", "runs", "each run", "mean ± std", "published"];
  const some = data.evaluations.length > 0;
  const main = rows((row) => row.headline);
  byId("evaluation-said").textContent = some
    ? "The newest value of each evaluator. Shares are in per cent; ± is the deviation over runs that differ in seed alone."
    : "No evaluation has been written yet.";
  fill("evaluation-table", ...(main.length ? [table(head, main, "Evaluations")] : []));
  fill("evaluation-all", table(head, rows(() => true), "All metrics of evaluations"));
  byId("evaluation-more").hidden = !some;
  byId("summary-more").hidden = !data.runs.some((run) => Object.keys(run.summary).length);
  beside("summary-table", "summary", "Closing summaries", false, "");
}

// The traces of a metric: a band of thinned parts, a faint line of what is smoothed, a line.
function traces(metric) {
  const out = [], axis = byId("axis").value, weight = Number(byId("smooth").value);
  for (const run of data.runs) {
    const curve = hidden.has(run.name) ? null : along(run, metric, axis, weight);
    if (!curve) continue;
    const { colour, dash } = styleOf(run);
    const base = { type: "scatter", mode: "lines", x: curve.x, hoverinfo: "skip", showlegend: false };
    if (curve.lo) {
      out.push({ ...base, y: curve.lo, line: { width: 0, color: colour } });
      out.push({ ...base, y: curve.hi, line: { width: 0, color: colour }, fill: "tonexty", fillcolor: `${colour}30` });
    } else if (weight) {
      out.push({ ...base, y: curve.raw, line: { width: 1, color: colour }, opacity: 0.3 });
    }
    const few = curve.x.length < 30;
    out.push({ ...base, y: curve.y, mode: few ? "lines+markers" : "lines", name: run.name,
      line: { width: 2, color: colour, dash }, marker: { size: 5, color: colour },
      hoverinfo: undefined, hovertemplate: "%{y:.5g}<extra>%{fullData.name}</extra>", meta: run.name });
  }
  return out;
}

function layout(metric) {
  const colours = getComputedStyle(document.documentElement);
  const of = (name) => colours.getPropertyValue(name).trim();
  const axis = { gridcolor: of("--line"), zerolinecolor: of("--line"), linecolor: of("--line"), automargin: true };
  const by = byId("axis");
  return {
    margin: { l: 8, r: 8, t: 8, b: 8 }, showlegend: false, hovermode: "x unified",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",  // a finger scrolls
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: of("--ink"), size: 12 },
    hoverlabel: { bgcolor: of("--back"), bordercolor: of("--line"), font: { color: of("--ink") } },
    uirevision: `${by.value} ${byId("log").checked}`, autosize: true,
    xaxis: { ...axis, title: { text: by.options[by.selectedIndex].text, standoff: 4 } },
    yaxis: { ...axis, type: byId("log").checked ? "log" : "linear", exponentformat: "power" },
  };
}

function drawChart(figure) {
  const metric = figure.dataset.metric, drawn = traces(metric);
  const ends = drawn.filter((trace) => trace.meta).map((trace) => `${trace.meta} ${show(last(trace.y))}`);
  figure.setAttribute("aria-label", `${metric}. Last values: ${ends.join("; ") || "none along this axis"}`);
  figure.querySelector("span").textContent = ends.length ? "" : " (no values along this axis)";
  figure.dataset.stale = "";
  Plotly.react(figure.querySelector(".plot"), drawn, layout(metric),
    { responsive: true, displayModeBar: false });
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    entry.target.dataset.seen = entry.isIntersecting ? "yes" : "";
    if (entry.isIntersecting && entry.target.dataset.stale) drawChart(entry.target);
  }
}, { rootMargin: "400px" });

function redraw() {
  for (const figure of charts.values()) {
    figure.dataset.stale = "yes";
    if (figure.dataset.seen && !figure.hidden) drawChart(figure);
  }
}

// What a key does to a chart; false where it does nothing.
function act(figure, key) {
  const plot = figure.querySelector(".plot");
  if (!plot.layout) return false;
  if (key === "Enter") {
    figure.classList.toggle("large");
    Plotly.Plots.resize(plot);
  } else if (key === "0") {
    Plotly.relayout(plot, { "xaxis.autorange": true, "yaxis.autorange": true });
  } else if (["+", "-", "ArrowLeft", "ArrowRight"].includes(key)) {
    Plotly.relayout(plot, { "xaxis.range": zoomed(plot.layout.xaxis.range, key) });
  } else return false;
  return true;
}

function chartKey(event) {
  const key = event.key === "=" ? "+" : event.key;
  if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
  if (act(event.currentTarget, key)) event.preventDefault();
}

// For a mouse or a finger; with a keyboard the chart itself takes the keys.
function makeButtons(figure) {
  const made = BUTTONS.map(([key, text, label]) => {
    const button = el("button", { type: "button", tabIndex: -1, title: label, "aria-label": label }, text);
    button.addEventListener("click", () => act(figure, key));
    return button;
  });
  return el("div", { className: "buttons" }, ...made);
}

function makeChart(metric) {
  const figure = el("figure", { tabIndex: 0, role: "group" },
    el("figcaption", {}, metric, el("span")), el("div", { className: "plot" }));
  figure.prepend(makeButtons(figure));
  figure.dataset.metric = metric;
  figure.dataset.stale = "yes";
  figure.addEventListener("keydown", chartKey);
  charts.set(metric, figure);
  watcher.observe(figure);
  return figure;
}

function drawCharts() {
  const parts = data.sections.map(({ title, metrics }) => el("section", {},
    el("h3", {}, title), el("div", { className: "grid" }, ...metrics.map((m) => charts.get(m) || makeChart(m)))));
  fill("charts", ...parts);
  filterCharts();
  redraw();
}

function filterCharts() {
  let wanted = () => true;
  try {
    const pattern = new RegExp(byId("filter").value, "i");
    wanted = (metric) => pattern.test(metric);
    byId("filter").setCustomValidity("");
  } catch (error) {
    byId("filter").setCustomValidity(error.message);
  }
  for (const [metric, figure] of charts) figure.hidden = !wanted(metric);
  for (const part of byId("charts").children) part.hidden = !part.querySelector("figure:not([hidden])");
  redraw();
}

function pictureSteps() {
  const all = Object.values(pictures.runs).flatMap(Object.values).flat();
  return [...new Set(all.map((picture) => picture.step))].sort((a, b) => a - b);
}

function drawPictures() {
  const steps = pictureSteps(), slider = byId("picture-step");
  const atEnd = slider.value === slider.max;
  byId("pictures").hidden = !steps.length;
  slider.max = String(Math.max(0, steps.length - 1));
  if (atEnd) slider.value = slider.max;
  slider.disabled = steps.length < 2;
  const panels = [];
  for (const [run, names] of Object.entries(pictures.runs)) {
    for (const [name, panel] of Object.entries(names)) {
      const figure = el("figure", { className: "panel" }, el("figcaption", {}, `${run}: ${name}`, el("span")), el("img"));
      figure.pictures = panel;
      panels.push(figure);
    }
  }
  fill("panels", ...panels);
  showPictures();
}

function showPictures() {
  const step = pictureSteps()[Number(byId("picture-step").value)];
  byId("picture-said").textContent = show(step);
  byId("picture-step").setAttribute("aria-valuetext", `step ${show(step)}`);
  byId("panels").classList.toggle("full", byId("picture-full").checked);
  for (const figure of byId("panels").children) {
    const picture = pictureAt(figure.pictures, step), image = figure.querySelector("img");
    figure.querySelector("span").textContent = `, step ${show(picture.step)}`;
    image.alt = `${figure.querySelector("figcaption").textContent}: what the run made of some images`;
    if (image.src !== picture.src) image.src = picture.src;
  }
}

function drawNotes() {
  const notes = [...data.notes, ...pictures.notes,
    ...data.runs.flatMap((run) => run.notes.map((note) => `${run.name}: ${note}`))];
  fill("note-list", ...(notes.length ? notes : ["Nothing."]).map((note) => el("li", {}, note)));
}

function drawAll() {
  const focus = document.activeElement && document.activeElement.id;
  const names = data.runs.map((run) => run.name);
  byId("title").textContent = names.length === 1 ? `Run ${names[0]}` : `${names.length} runs`;
  byId("made").textContent = `vit_ssl_jax ${data.version || ""}, ${LIVE ? "last change" : "made"} ${data.made || ""}`;
  drawRuns();
  beside("difference-table", "config", "How the configs differ", true,
    names.length > 1 ? "They don't." : "There is one run; its config is below.");
  byId("differences").hidden = names.length < 2;
  drawEvaluations();
  drawCharts();
  drawPictures();
  beside("machine-table", "versions", "Machine and versions", false, "No run has written versions.json.");
  beside("card-table", "card", "Data card", false, "No run has written data.json.");
  beside("config-table", "config", "Configs", false, "No config.");
  drawNotes();
  const shown = [...document.querySelectorAll("main > section:not([hidden])")];
  fill("contents", ...shown.map((part) => el("a", { href: `#${part.id}` }, part.querySelector("h2").textContent)));
  if (focus && byId(focus)) byId(focus).focus({ preventScroll: true });
}

const tags = {};
// The JSON of an address where it has changed, else null.
async function fetchChanged(address) {
  const answer = await fetch(address, { cache: "no-cache" });
  const got = await answer.json();
  if (!answer.ok) throw new Error(got.error || answer.statusText);
  const tag = answer.headers.get("ETag");
  if (tags[address] === tag) return null;
  tags[address] = tag;
  return got;
}

async function follow() {
  const trouble = byId("trouble");
  try {
    const [newData, newPictures] = [await fetchChanged("data.json"), await fetchChanged("pictures.json")];
    data = newData || data;
    pictures = newPictures || pictures;
    if (newData || newPictures) drawAll();
    else drawRuns();
    trouble.hidden = true;
  } catch (error) {
    trouble.textContent = `What is shown may be old: ${error.message}`;
    trouble.hidden = false;
  }
  setTimeout(follow, EVERY);
}

for (const id of ["axis", "log"]) byId(id).addEventListener("change", redraw);
byId("smooth").addEventListener("input", () => {
  byId("smooth-said").textContent = byId("smooth").value;
  redraw();
});
byId("filter").addEventListener("input", filterCharts);
byId("picture-step").addEventListener("input", showPictures);
byId("picture-full").addEventListener("change", showPictures);
for (const id of ["controls", "picture-controls"]) byId(id).addEventListener("submit", (event) => event.preventDefault());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawRuns(); redraw(); });
drawAll();
if (LIVE) follow();
