// A session's page: charts over exposures, kept up to date by what changed, and filters.

import { clock, colour, dash, element, fetchJson, follow, keepTimes, number, rem } from "./core.js";
import { animation, axis, makeChart, tooltip } from "./chart.js";

const page = document.getElementById("session");
const api = page.dataset.api;
const processing = page.dataset.processing;
const query = (values) => {
  const all = new URLSearchParams(values);
  if (processing) all.set("processing", processing);
  const shown = all.toString();
  return shown ? `?${shown}` : "";
};

// Which columns each plot shows, with their colours.
const SERIES = {
  total_A: [
    ["total_A", "total", "series-1"],
    ["late_A", "late", "series-2"],
    ["early_A", "early", "series-3"],
  ],
  defocus_A: [["defocus_A", "", "series-1"]],
  astigmatism_A: [["astigmatism_A", "", "series-1"]],
  fit_resolution_A: [["fit_resolution_A", "", "series-1"]],
  n_picks: [["n_picks", "", "series-1"]],
  latency_s: [["latency_s", "", "series-1"]],
};

const state = { change: -1, total: 0, axis: "n", columns: {}, statistics: {} };
const charts = new Map();
const names = new Map();

// ---- data

async function load(full) {
  const points = Math.min(4000, Math.max(500, Math.round(window.innerWidth * 1.1)));
  const asked = full ? { points } : { points, since: state.change, known: state.total };
  const answer = await fetchJson(`${api}/columns${query(asked)}`);
  if (answer.reset) state.columns = {};
  let crowded = false;
  for (const [name, got] of Object.entries(answer.quantities)) {
    const known = (state.columns[name] ??= new Map());
    got.id.forEach((id, i) =>
      known.set(id, { id, n: got.n[i], t: got.t[i], y: got.y[i], s: got.s[i], k: got.k[i] }),
    );
    const thinned = got.thinned || (!answer.reset && state.statistics[name]?.thinned);
    state.statistics[name] = { ...got, thinned };
    crowded ||= known.size > answer.points * 1.5;
  }
  state.change = answer.change;
  state.total = answer.total;
  if (crowded && !full) return load(true);
  draw();
}

// ---- drawing

function rows(name) {
  const known = [...(state.columns[name] ?? new Map()).values()];
  known.sort((a, b) => a.n - b.n);
  return known.map((p) => ({
    value: [state.axis === "n" ? p.n : p.t === null ? null : p.t * 1000, p.y],
    id: p.id,
    n: p.n,
    at: p.t,
    status: p.s,
    kind: p.k,
  }));
}

function option(plot) {
  const size = rem();
  const shown = state.statistics[plot] ?? { label: "", unit: "", digits: 0 };
  const series = SERIES[plot].flatMap(([name, label, tint], place) => {
    const all = rows(name);
    const data = all.filter((p) => p.kind === 0);
    const extremes = all.filter((p) => p.kind !== 0);
    const shared = {
      name: label || shown.label,
      type: "scatter",
      emphasis: { itemStyle: { borderColor: colour("text"), borderWidth: 2, opacity: 1 } },
      cursor: "pointer",
    };
    return [
      {
        ...shared,
        data,
        symbolSize: (data.length < 80 ? 0.5 : data.length < 600 ? 0.36 : 0.24) * size,
        itemStyle: { color: colour(tint), opacity: data.length > 600 ? 0.7 : 0.9 },
        z: 20 - place,
        markLine: place === 0 && Number.isFinite(shown.median) ? middle(shown) : undefined,
      },
      // Lowest and highest of each run: there so that no outlier is lost, faint so that they aren't
      // taken for groups of their own.
      { ...shared, data: extremes, symbolSize: 0.2 * size, itemStyle: { color: colour(tint), opacity: 0.28 }, z: 10 - place },
    ];
  });
  return {
    ...animation(),
    grid: { left: 4, right: size * 0.9, top: size * 0.6, bottom: 2, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    xAxis: {
      ...axis({ splitLine: { show: false } }),
      type: state.axis === "n" ? "value" : "time",
      minInterval: state.axis === "n" ? 1 : undefined,
      min: state.axis === "n" ? 1 : undefined,
      max: state.axis === "n" ? Math.max(state.total, 2) : undefined,
    },
    yAxis: {
      ...axis(),
      type: "value",
      min: (range) => (range.min >= 0 && range.min < 0.6 * range.max ? 0 : undefined),
      scale: true,
      splitNumber: 3,
    },
    tooltip: tooltip({ trigger: "item", formatter: (item, ticket, done) => hover(plot, item, (content) => done(ticket, content)) }),
    series,
  };
}

function middle(shown) {
  return {
    silent: true,
    symbol: "none",
    label: { show: false },
    lineStyle: { color: colour("muted"), type: "dashed", width: 1 },
    data: [{ yAxis: shown.median }],
  };
}

function draw() {
  for (const plot of Object.keys(SERIES)) {
    const box = page.querySelector(`[data-plot="${plot}"]`);
    const figure = box.closest("figure");
    const any = SERIES[plot].some(([name]) => state.columns[name]?.size);
    figure.classList.toggle("is-empty", !any);
    describe(plot, figure);
    if (!any) continue;
    const known = charts.get(plot);
    if (known) known.setOption(option(plot), { replaceMerge: ["series"] });
    else start(plot, box);
  }
  const thinned = Object.values(state.statistics).some((shown) => shown.thinned);
  page.querySelector("[data-thinned]").hidden = !thinned;
  page.dataset.drawn = state.change;
}

function start(plot, box) {
  const chart = makeChart(box, () => option(plot));
  charts.set(plot, chart);
  chart.on("click", (item) => {
    if (item.data?.id) location.assign(`${page.dataset.page}/exposures/${item.data.id}${query({})}`);
  });
}

function describe(plot, figure) {
  const shown = state.statistics[plot];
  const now = figure.querySelector(".now");
  if (!shown || shown.median === null) {
    now.textContent = "";
    return;
  }
  const digits = shown.digits;
  const unit = shown.unit ? ` ${shown.unit}` : "";
  if (plot === "latency_s") now.textContent = `p50 ${number(shown.median, digits)}, p95 ${number(shown.p95, digits)}${unit}`;
  else now.textContent = `median ${number(shown.median, digits)}${unit}`;
  now.title = `${number(shown.count)} measured; 5 % below ${number(shown.p5, digits)}, 95 % below ${number(shown.p95, digits)}${unit}`;
  const legend = figure.querySelector(".legend");
  if (SERIES[plot].length > 1 && !legend.childElementCount) {
    for (const [, label, tint] of SERIES[plot]) legend.append(element("i", { "data-tint": tint }, label));
  }
}

// ---- what a point says when the pointer is over it

function hover(plot, item, show) {
  const point = item.data;
  if (!point?.id) return "";
  const shown = state.statistics[SERIES[plot][Math.floor(item.seriesIndex / 2)]?.[0]] ?? {};
  const box = element("div", { class: "hover" });
  const title = element("b", {}, names.get(point.id)?.name ?? `exposure ${point.n}`);
  const value = `${shown.label} ${number(point.value[1], shown.digits)} ${shown.unit}`;
  const when = point.at ? `, ${clock(new Date(point.at * 1000))}` : "";
  box.append(title, element("span", {}, value), element("small", {}, `number ${number(point.n)}${when}, ${point.status}`));
  const run = { "-1": "lowest of its run", 1: "highest of its run" }[point.kind];
  if (run) box.append(element("small", {}, run));
  const known = names.get(point.id);
  if (known?.thumbnail) box.append(element("img", { src: known.thumbnail, alt: "", width: "128", height: "128" }));
  if (!known) {
    whois(point.id).then(() => show(hover(plot, item, show)));
  }
  return box;
}

async function whois(id) {
  try {
    const found = await fetchJson(`${api}/exposures/${id}${query({})}`);
    names.set(id, { name: found.item.split("/").pop(), thumbnail: found.pictures.thumbnail });
  } catch {
    names.set(id, { name: `exposure ${id}` });
  }
}

// ---- filters: counts and reasons are links that also work without a script

function filter(status, reason) {
  const form = document.getElementById("filters");
  form.elements.status.value = status;
  form.elements.reason.value = reason;
  form.dispatchEvent(new Event("change", { bubbles: true }));
  document.getElementById("gallery").scrollIntoView({ behavior: "smooth", block: "start" });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-filter-status]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    filter(link.dataset.filterStatus, link.dataset.filterReason ?? "");
  }
  const button = event.target.closest("[data-axis]");
  if (button) {
    state.axis = button.dataset.axis;
    for (const other of page.querySelectorAll("[data-axis]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    for (const chart of charts.values()) chart.clear();
    draw();
  }
});

document.getElementById("filters").addEventListener("change", (event) => {
  // Another status drops the reason that was asked for with the old one.
  if (event.target.name === "status") event.currentTarget.elements.reason.value = "";
});

document.body.addEventListener("htmx:beforeRequest", (event) => {
  // A live change must not move a page of the gallery under somebody who reads an older one.
  const window_ = document.getElementById("gallery-window");
  const live = event.detail.requestConfig.triggeringEvent?.type === "live";
  if (live && event.detail.elt === window_ && Number(document.getElementById("gallery-offset").value) > 0) {
    event.preventDefault();
  }
});

// ---- live: at most one round of fetching at a time, and none is forgotten

let busy = false;
let again = false;

async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  try {
    document.body.dispatchEvent(new CustomEvent("live"));
    await Promise.all([load(state.change < 0), new Promise((resolve) => setTimeout(resolve, 700))]);
  } catch (error) {
    page.dataset.error = error.message || dash;
  } finally {
    busy = false;
    if (again) {
      again = false;
      refresh();
    }
  }
}

// A picture whose file is gone says so instead of showing a broken image.
document.addEventListener(
  "error",
  (event) => {
    if (!event.target.matches?.(".card img, .hover img")) return;
    event.target.replaceWith(element("span", { class: "no-picture" }, "picture file is missing"));
  },
  true,
);

keepTimes();
load(true).catch((error) => (page.dataset.error = error.message));
follow(`${api}/live`, refresh);
