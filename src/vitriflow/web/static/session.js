// A session's page: plots, limits, the map and the gallery over one table of columns. What's selected
// in one place is selected in all.

import { Balloon } from "./balloon.js";
import { dash, element, fetchJson, follow, keepTimes, number } from "./core.js";
import { kindsOf } from "./density.js";
import { Gallery } from "./gallery.js";
import { Limits } from "./limits.js";
import { GridMap } from "./map.js";
import { Marking } from "./marking.js";
import { Plot } from "./plot.js";
import { Table, count, readBrushes, writeBrushes } from "./table.js";
import { Throughput } from "./throughput.js";
import { Views } from "./views.js";

const page = document.getElementById("session");
const { api, processing } = page.dataset;
const query = (values) => {
  const all = new URLSearchParams(values);
  if (processing) all.set("processing", processing);
  const shown = all.toString();
  return shown ? `?${shown}` : "";
};
const at = (id) => document.getElementById(id);

// What the plots ask of the page: one state for all of them.
const views = new Views();
const host = {
  table: new Table(),
  axis: "n",
  brushes: [],
  square: "",
  hole: "",
  limits: {},
  selected: null, // mask, or null while nothing is selected
  passing: null, // mask, or null without limits
  kinds: null, // both together, as plots draw them
  mayLimit: Boolean(page.dataset.mayLimit),
  timeRange,
  brush,
  select,
  refresh,
  choose,
  clear,
  hover: (...asked) => balloon.hover(...asked),
  tell: (...asked) => balloon.tell(...asked),
  limit: (...asked) => limits.set(...asked),
  redraw: (some) => views.redraw(some),
  open: (row) => location.assign(`${page.dataset.page}/exposures/${host.table.columns.id[row]}${query({})}`),
  chosen: (square) => {
    host.square = square;
    select();
  },
};
host.marking = new Marking(api, () => refresh());
const balloon = new Balloon(page, host, (id) => `${api}/exposures/${id}${query({})}`);
const limits = new Limits(page, host, `${api}/limits${query({})}`);
const gallery = new Gallery(host);
const plots = [...page.querySelectorAll("[data-plot]")]
  .filter((box) => box.dataset.plot !== "throughput")
  .map((box) => views.add(new Plot(box, box.dataset.plot, host)));
const throughput = views.add(new Throughput(page.querySelector('[data-plot="throughput"]'), host));
const map = views.add(new GridMap(at("map"), at("map-scale"), at("map-empty"), host));

// ---- data

async function load() {
  const { table } = host;
  performance.mark("asked");
  const first = table.change < 0;
  const answer = await fetch(`${api}/table${query(first ? {} : { since: table.change, known: table.size })}`);
  if (!answer.ok) throw new Error((await answer.json()).error?.found ?? answer.statusText);
  const packed = await answer.arrayBuffer();
  performance.mark("arrived");
  const changed = table.merge(packed);
  limits.take();
  range = null;
  mask();
  // What's on the screen first; words, and what stands below, come with the next frames.
  views.redraw();
  await new Promise((go) => requestAnimationFrame(() => setTimeout(go, 0)));
  if (first) page.dataset.paint = performance.now().toFixed(0);
  tellSelected();
  if (first || changed) {
    describe();
    await listSquares();
  }
  await views.settled();
  page.dataset.drawn = table.change;
}

let range = null;
function timeRange() {
  if (!range) {
    const { t } = host.table.columns;
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < host.table.size; i++) {
      if (t[i] < low) low = t[i];
      if (t[i] > high) high = t[i];
    }
    if (!(low < Infinity)) [low, high] = [0, 1];
    const pad = (high - low) * 0.01 || 30;
    range = [low - pad, high + pad];
  }
  return range;
}

// ---- selecting and limiting: masks first, then everything that shows them

let unmasked = false; // pointers report more often than the screen shows: masks are made once a frame
function mask() {
  const { table } = host;
  host.selected = table.selected(host.brushes, host.square, host.hole);
  host.passing = Object.keys(host.limits).length ? table.passing(host.limits) : null;
  host.kinds = kindsOf(table.size, host.selected, host.passing);
  unmasked = false;
}

function tellSelected() {
  at("selection").hidden = !host.selected;
  at("select-hint").hidden = Boolean(host.selected);
  if (host.selected) at("selected-count").textContent = `${number(count(host.selected))} of ${number(host.table.size)} selected`;
  limits.tell();
}

function select() {
  unmasked = true;
  views.redraw([...plots, map]);
}

views.prepare = () => {
  if (!unmasked || host.table.change < 0) return;
  mask();
  tellSelected();
};

function brush(made, added, done) {
  const before = added ? (host.before ?? host.brushes) : [];
  host.before ??= host.brushes;
  host.brushes = [...before, made];
  select();
  if (!done) return;
  host.before = null;
  gallery.filter({ brush: writeBrushes(host.brushes) }, false);
}

function clear() {
  Object.assign(host, { brushes: [], square: "", hole: "" });
  at("square-choice").value = "";
  select();
  gallery.filter({ status: "all", reason: "", mark: "", limits: "", square: "", hole: "", brush: "" }, false);
}

// ---- words beside the plots

function describe() {
  for (const [name, shown] of Object.entries(host.table.quantities)) {
    const now = page.querySelector(`[data-median="${name}"]`);
    if (!now) continue;
    page.querySelector(`#plot-${name}`).classList.toggle("is-empty", !shown.count);
    const [p5, p50, p95] = [shown.p5, shown.median, shown.p95].map((value) => number(value, shown.digits));
    now.textContent = !shown.count ? "" : name === "latency_s" ? `p50 ${p50}, p95 ${p95}` : `median ${p50}`;
    now.title = `${number(shown.count)} measured; 5 % below ${p5}, 95 % below ${p95} ${shown.unit}`;
  }
}

// ---- grid squares by what they yield

async function listSquares() {
  const { squares } = await fetchJson(`${api}/squares${query({})}`);
  at("squares-empty").hidden = squares.length > 0;
  at("squares").closest(".table").hidden = !squares.length;
  const kept = at("square-choice").value || gallery.get("square");
  at("square-choice").replaceChildren(element("option", { value: "" }, "any"), ...squares.map((one) => element("option", { value: one.name }, one.name)));
  at("square-choice").value = kept;
  at("squares").replaceChildren(
    ...squares.map((one) => {
      const button = element("button", { type: "button", class: "link", "data-square": one.name }, one.name);
      const row = element("tr", {});
      const cells = [
        number(one.rank),
        button,
        number(one.exposures),
        one.usable_fraction === null ? dash : `${number(100 * one.usable_fraction)} %`,
        one.fit_resolution_A === null ? dash : `${number(one.fit_resolution_A, 1)} Å`,
        one.picks_per_exposure === null ? dash : number(one.picks_per_exposure),
      ];
      row.append(...cells.map((cell) => element("td", {}, cell)));
      return row;
    }),
  );
}

function choose(level, item) {
  if (level === "stage") return host.open(item.row);
  const same = host[level] === item.name;
  host[level] = same ? "" : item.name;
  host[level === "square" ? "hole" : "square"] = "";
  at("square-choice").value = host.square;
  select();
  gallery.filter({ square: host.square, hole: host.hole }, false);
}

at("squares").addEventListener("click", (event) => {
  const name = event.target.dataset?.square;
  if (name) choose("square", { name });
});

// ---- buttons and links; counts and reasons also work without a script

const press = (button, name) => {
  for (const other of page.querySelectorAll(`[data-${name}]`)) other.setAttribute("aria-pressed", String(other === button));
};

document.addEventListener("click", (event) => {
  const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey;
  const link = event.target.closest("[data-filter-status], [data-filter-mark], [data-filter-limits]");
  if (link && plain) {
    event.preventDefault();
    const { filterStatus: status = "all", filterReason: reason = "", filterMark: mark = "", filterLimits: limits = "" } = link.dataset;
    gallery.filter({ status, reason, mark, limits });
  }
  const button = event.target.closest("button");
  if (!button) return;
  const { axis, level, markSelected } = button.dataset;
  if (axis) {
    host.axis = axis;
    press(button, "axis");
    views.redraw(plots);
  }
  if (level) {
    map.level = level;
    press(button, "level");
    views.redraw([map]);
  }
  if (markSelected && host.selected) {
    const ids = [];
    for (let i = 0; i < host.table.size; i++) if (host.selected[i]) ids.push(host.table.columns.id[i]);
    if (ids.length) host.marking.mark(ids, markSelected);
  }
  if (button.id === "open-selected") gallery.filter({ brush: writeBrushes(host.brushes), square: host.square, hole: host.hole });
  if (button.id === "clear-selection") clear();
  if (button.id === "help-button") {
    at("keys").hidden = !at("keys").hidden;
    button.setAttribute("aria-expanded", String(!at("keys").hidden));
  }
});

at("map-colour").addEventListener("change", (event) => {
  map.quantity = event.target.value;
  views.redraw([map]);
});

// What the reader opened stays open when its part of the page comes anew.
const opened = new Set();
document.addEventListener(
  "toggle",
  (event) => {
    const { keep } = event.target.dataset ?? {};
    if (keep) opened[event.target.open ? "add" : "delete"](keep);
  },
  true,
);
document.body.addEventListener("htmx:afterSwap", () => {
  for (const one of document.querySelectorAll("details[data-keep]")) one.open = opened.has(one.dataset.keep);
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => views.redraw());

// ---- live: at most one round of fetching at a time, and none is forgotten

let busy = false;
let again = false;

async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  document.body.dispatchEvent(new CustomEvent("live"));
  await fetchOnce(700);
}

async function fetchOnce(atLeast) {
  busy = true;
  try {
    await Promise.all([load(), new Promise((resolve) => setTimeout(resolve, atLeast))]);
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
    if (!event.target.matches?.(".card img, .balloon img")) return;
    event.target.replaceWith(element("span", { class: "no-picture" }, "picture file is missing"));
  },
  true,
);

keepTimes();
host.brushes = readBrushes(gallery.get("brush"));
host.square = gallery.get("square");
host.hole = gallery.get("hole");
fetchOnce(0).finally(() => {
  // The page as it came is of one state: only another one is news.
  let { stamp } = page.dataset;
  follow(`${api}/live`, (news) => {
    if (news.stamp === stamp) return;
    stamp = news.stamp;
    refresh();
  });
});
