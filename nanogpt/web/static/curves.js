// Curves of one or several runs, which grow while the runs train.
import { get, repeat } from "./common.js";

const { uPlot } = window;
const GROWING = 1500; // milliseconds between looks at a run that trains
const FEW = 3; // points, which are marked, since one alone makes no line
const RESTING = 10000; // and at one that doesn't, which may be resumed
const LABELS = { learning_rate: "learning rate", tokens_per_second: "tokens per second" };
const KINDS = { val_loss: "validation", train_loss: "training", loss: "batches" };

const part = document.querySelector("[data-curves]");
const controls = part?.querySelector("form");

const runs = [...(part?.querySelectorAll("[data-run]") ?? [])].map((span, place) => ({
  name: span.dataset.run,
  place,
  isActive: "active" in span.dataset,
  next: "",
  columns: null,
}));
const shownKinds = new Set(runs.length > 1 ? ["val_loss"] : ["val_loss", "train_loss", "loss"]);

// --- Looks ----------------------------------------------------------------------------------

/** The color of a CSS class. Canvases don't know light-dark(). */
function color(name, alpha = 1) {
  const probe = document.createElement("span");
  probe.className = name;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return alpha === 1 ? found : found.replace(/rgba?\(([^)]*)\)/, (_, parts) => `rgba(${parts.split(",").slice(0, 3)}, ${alpha})`);
}

function lookOf(run, kind) {
  if (runs.length === 1) {
    if (kind === "val_loss") return { stroke: color("look-0"), width: 2.5 };
    if (kind === "train_loss") return { stroke: color("look-1"), width: 1.5, dash: [6, 4] };
    return { stroke: color(kind === "loss" ? "faint" : "look-0", kind === "loss" ? 0.6 : 1), width: 1 };
  }
  const name = `look-${run.place}`;
  if (kind === "train_loss") return { stroke: color(name), width: 1.2, dash: [6, 4] };
  if (kind === "loss") return { stroke: color(name, 0.5), width: 1 };
  return { stroke: color(name), width: kind === "val_loss" ? 2.2 : 1.2 };
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const large = (value) => (Math.abs(value) < 1e5 ? whole.format(value) : compact.format(value));
const small = (value) => String(Number(value.toPrecision(4)));
const FORMATS = { loss: (value) => value.toFixed(4), learning_rate: small, tokens_per_second: large, position: large };

// --- Data -----------------------------------------------------------------------------------

/** Smooth by an exponential moving average, corrected for its start. */
function smooth(values, weight) {
  if (!weight) return values;
  let mean = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return mean / mass;
  });
}

/** The lines of a run as a table for uPlot: x, and the values of each measure. */
function tableOf(run, measures, options) {
  const { columns } = run;
  const xs = columns[options.x];
  const kept = [];
  let last = -Infinity;
  for (const [place, x] of xs.entries()) {
    // uPlot needs increasing values; a log axis has no zero.
    if (x === null || x <= last || (options.logX && x <= 0)) continue;
    last = x;
    kept.push(place);
  }
  const rows = measures.map((measure) => {
    const isNoisy = measure === "loss" || measure === "tokens_per_second";
    const values = isNoisy ? smooth(columns[measure], options.smoothing) : columns[measure];
    return kept.map((place) => (options.logY && !(values[place] > 0) ? null : values[place]));
  });
  return [kept.map((place) => xs[place]), ...rows];
}

function dataOf(measures, options) {
  const known = runs.filter((run) => run.columns);
  if (!known.length) return [[], ...measures];
  const tables = known.map((run) => tableOf(run, measures, options));
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

function readOptions() {
  const data = new FormData(controls);
  return {
    x: data.get("x"),
    logX: data.has("log-x"),
    logY: data.has("log-y"),
    smoothing: Number(data.get("smoothing")),
  };
}

// --- Charts ---------------------------------------------------------------------------------

class Chart {
  constructor(element, measures) {
    this.element = element;
    this.measures = measures; // a function
    this.isZoomed = false;
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(element);
  }

  size() {
    const isTall = this.element.classList.contains("tall");
    const isNarrow = this.element.clientWidth < 500;
    return { width: Math.max(200, this.element.clientWidth), height: isTall ? (isNarrow ? 280 : 360) : 220 };
  }

  /** Draw from scratch. */
  draw(options) {
    this.plot?.destroy();
    this.plot = null;
    this.isZoomed = false;
    const measures = this.measures();
    const known = runs.filter((run) => run.columns);
    this.isLog = options.logY && this.element.dataset.chart === "loss";
    const own = { ...options, logY: this.isLog };
    const data = dataOf(measures, own);
    if (!measures.length || !data[0].length) return;
    const format = FORMATS[this.element.dataset.chart];
    const series = known.flatMap((run) =>
      measures.map((measure) => ({
        label: runs.length > 1 ? (measures.length > 1 ? `${run.name}, ${KINDS[measure]}` : run.name) : (KINDS[measure] ?? LABELS[measure]),
        ...lookOf(run, measure),
        spanGaps: true,
        points: { show: hasFew },
        value: (_, value) => (value === null || value === undefined ? "–" : format(value)),
      })),
    );
    this.plot = makePlot(this, data, series, format, {
      x: { label: { step: "step", tokens: "tokens", seconds: "seconds" }[options.x], isLog: options.logX },
      isLogY: this.isLog,
      // Several runs have the same colors in all charts.
      hasLegend: runs.length === 1 || this.element.dataset.chart === "loss",
    });
  }

  /** Show new data, keeping the zoom. */
  update(options) {
    if (!this.plot) return this.draw(options);
    const data = dataOf(this.measures(), { ...options, logY: this.isLog });
    if (data.length !== this.plot.series.length) return this.draw(options);
    return this.plot.setData(data, !this.isZoomed);
  }
}

/** Whether a series has so few values that each is marked. */
function hasFew(plot, place) {
  let n = 0;
  return plot.data[place].every((value) => value === null || value === undefined || ++n < FEW);
}

/** The width of an axis whose numbers have these texts. */
function widthOf(plot, values, place, cycle) {
  const own = plot.axes[place];
  if (cycle > 1) return own._size; // uPlot asks again until nothing changes
  const longest = Math.max(4, ...(values ?? []).map((text) => text.length));
  return Math.ceil(longest * 7.2) + 22;
}

function makePlot(chart, data, series, format, { x, isLogY, hasLegend = true }) {
  const axis = { stroke: color("faint"), grid: { stroke: color("rule"), width: 1 }, ticks: { stroke: color("rule"), width: 1 }, font: "12px system-ui" };
  const zoom = (isZoomed) => {
    chart.isZoomed = isZoomed;
    showZoomOut();
  };
  return new uPlot(
    {
      ...chart.size(),
      scales: { x: { time: false, distr: x.isLog ? 3 : 1, ...(x.isLog && { range: (_, low, high) => [low, high] }) }, y: { distr: isLogY ? 3 : 1 } },
      axes: [
        { ...axis, values: (_, values) => values.map((value) => (value === null ? "" : large(value))) },
        { ...axis, size: widthOf, values: (_, values) => values.map((value) => (value === null ? "" : format === FORMATS.loss ? small(value) : format(value))) },
      ],
      series: [{ label: x.label, value: (_, value) => (value === null ? "–" : large(value)) }, ...series],
      cursor: { points: { size: 6 } },
      legend: { show: hasLegend },
      hooks: {
        setSelect: [(plot) => plot.select.width > 0 && zoom(true)],
        ready: [(plot) => plot.over.addEventListener("dblclick", () => zoom(false))],
      },
    },
    data,
    chart.element,
  );
}

const charts = [];
const zoomOut = part?.querySelector("[data-zoom-out]");

function showZoomOut() {
  if (zoomOut) zoomOut.hidden = !charts.some((chart) => chart.isZoomed);
}

function drawAll() {
  const options = readOptions();
  for (const chart of charts) chart.draw(options);
  showZoomOut();
}

function updateAll() {
  const options = readOptions();
  for (const chart of charts) chart.update(options);
  part.querySelector("[data-summary]").textContent = runs.map(summary).join(" ");
}

/** The curve in words, for screen readers. */
function summary(run) {
  const values = run.columns?.val_loss ?? [];
  const place = values.findLastIndex((value) => value !== null);
  if (place < 0) return `${run.name}: no validation loss yet.`;
  const step = run.columns.step[place].toLocaleString("en");
  return `${run.name}: validation loss ${values[place].toFixed(4)} at step ${step}.`;
}

// --- Growth ---------------------------------------------------------------------------------

/** Get the lines of a run that are new. Returns whether there are any. */
async function fetchLines(run) {
  let isNew = false;
  for (;;) {
    const address = `/api/runs/${encodeURIComponent(run.name)}/curves?since=${run.next}`;
    const found = await get(address, "json");
    if (found === null || !found.next) return isNew;
    if (!found.since && run.columns && run.next) run.columns = null; // the file was written again
    if (found.columns.step.length) {
      isNew = true;
      if (run.columns) for (const [name, values] of Object.entries(found.columns)) run.columns[name].push(...values);
      else run.columns = found.columns;
    }
    run.next = found.next;
    if (!found.has_more) return isNew;
  }
}

function follow(run) {
  let grewAt = run.isActive ? Date.now() : 0;
  repeat(async () => {
    if (await fetchLines(run)) {
      part.classList.remove("no-data");
      if (run.started) grewAt = Date.now();
      updateAll();
    }
    run.started = true;
    return run.isActive || Date.now() - grewAt < 60000 ? GROWING : RESTING;
  });
}

// --- Loss by position -----------------------------------------------------------------------

let positions = null;

/** Draw the losses by position from the page's table of them. */
function drawPositions() {
  const element = document.querySelector("[data-positions]");
  positions?.destroy();
  positions = null;
  const table = element?.parentElement.querySelector("[aria-label='Loss by position'] table");
  if (!table) return;
  const number = (cell) => (/^[\d.]+$/.test(cell.textContent) ? Number(cell.textContent) : null);
  const rows = [...table.tBodies[0].rows];
  // A bucket is drawn at its last position, counted from 1.
  const xs = rows.map((row) => Number(row.cells[0].textContent.split(" ").at(-1)) + 1);
  const chart = new Chart(element, () => []);
  const series = [...table.tHead.rows[0].cells].slice(1).map((cell, place) => ({
    label: cell.textContent,
    stroke: color(`look-${place}`),
    width: 2,
    points: { show: true, size: 5 },
    value: (_, value) => (value === null || value === undefined ? "–" : FORMATS.loss(value)),
  }));
  const data = [xs, ...series.map((_, place) => rows.map((row) => number(row.cells[place + 1])))];
  positions = chart.plot = makePlot(chart, data, series, FORMATS.loss, { x: { label: "position", isLog: true }, isLogY: false });
}

// --- Start ----------------------------------------------------------------------------------

function addKinds() {
  const group = document.createElement("span");
  group.className = "row kinds";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Curves to show");
  for (const [kind, text] of Object.entries(KINDS)) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = shownKinds.has(kind);
    box.addEventListener("input", () => {
      if (box.checked) shownKinds.add(kind);
      else shownKinds.delete(kind);
    });
    label.append(box, ` ${text}`);
    group.append(label);
  }
  controls.append(group);
}

if (part) {
  addKinds();
  for (const one of part.querySelectorAll("[data-controls]")) one.hidden = false;
  for (const element of part.querySelectorAll("[data-chart]")) {
    const name = element.dataset.chart;
    const measures = name === "loss" ? () => Object.keys(KINDS).filter((kind) => shownKinds.has(kind)) : () => [name];
    charts.push(new Chart(element, measures));
  }
  controls.addEventListener("input", drawAll);
  controls.addEventListener("submit", (event) => event.preventDefault());
  zoomOut.addEventListener("click", drawAll);
  document.addEventListener("theme", drawAll);
  for (const run of runs) follow(run);
  // On the page of one run, run.js tells whether it trains.
  document.addEventListener("status", (event) => {
    for (const run of runs) run.isActive = event.detail.isActive;
  });
}
drawPositions();
document.addEventListener("theme", drawPositions);
document.addEventListener("rest", drawPositions);
