// A session's page: plots, limits, the map and the gallery over one table of columns. What's selected
// in one place is selected in all.

import { clock, dash, element, fetchJson, follow, keepTimes, number, rem } from "./core.js";
import { Gallery } from "./gallery.js";
import { GridMap, Throughput } from "./map.js";
import { Marking, post } from "./marking.js";
import { Plot } from "./plot.js";
import { Table, count, readBrushes, writeBrushes } from "./table.js";

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
const host = {
  table: new Table(),
  axis: "n",
  brushes: [],
  square: "",
  hole: "",
  limits: {},
  saved: {},
  selected: null, // mask, or null while nothing is selected
  passing: null, // mask, or null without limits
  mayLimit: Boolean(page.dataset.mayLimit),
  timeRange,
  hover,
  brush,
  limit,
  limitDone: () => {},
  open: (row) => location.assign(`${page.dataset.page}/exposures/${host.table.columns.id[row]}${query({})}`),
  tell,
  choose,
  clear,
  chosen: (square) => {
    host.square = square;
    select();
  },
};
host.marking = new Marking(api, () => refresh());
const gallery = new Gallery(host);
const plots = [...page.querySelectorAll("[data-plot]")]
  .filter((box) => box.dataset.plot !== "throughput")
  .map((box) => new Plot(box, box.dataset.plot, host));
const throughput = new Throughput(page.querySelector('[data-plot="throughput"]'), host);
const map = new GridMap(at("map"), at("map-scale"), at("map-empty"), host);

// ---- data

async function load() {
  const { table } = host;
  performance.mark("asked");
  const asked = table.change < 0 ? {} : { since: table.change, known: table.size };
  const answer = await fetch(`${api}/table${query(asked)}`);
  if (!answer.ok) throw new Error((await answer.json()).error?.found ?? answer.statusText);
  const first = table.change < 0;
  const changed = table.merge(await answer.arrayBuffer());
  takeLimits();
  range = null;
  if (first || changed) describe();
  select(false);
  // The plots first; what stands below them comes with the next frame.
  await new Promise((go) => requestAnimationFrame(() => setTimeout(go, 0)));
  if (first) page.dataset.paint = performance.now().toFixed(0);
  map.update();
  throughput.draw();
  if (first || changed) await listSquares();
  page.dataset.drawn = table.change;
}

// Limits as they are saved, unless somebody here is changing them.
function takeLimits() {
  const saved = JSON.stringify(host.table.limits);
  if (saved === JSON.stringify(host.saved) && host.loaded) return;
  const mine = JSON.stringify(host.limits) !== JSON.stringify(host.saved);
  host.saved = structuredClone(host.table.limits);
  if (!mine || !host.loaded) host.limits = structuredClone(host.table.limits);
  host.loaded = true;
  fillLimits();
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

let drawing = 0;
function redraw() {
  if (drawing) return;
  drawing = requestAnimationFrame(() => {
    drawing = 0;
    const began = performance.now();
    for (const plot of plots) plot.draw();
    page.dataset.redraw = (performance.now() - began).toFixed(1);
  });
}

function select(showMap = true) {
  const { table } = host;
  host.selected = table.selected(host.brushes, host.square, host.hole);
  const limited = Object.keys(host.limits).length > 0;
  const mask = limited ? table.passing(host.limits) : null;
  host.passing = mask;
  const chosen = at("selection");
  chosen.hidden = !host.selected;
  at("select-hint").hidden = Boolean(host.selected);
  if (host.selected) at("selected-count").textContent = `${number(count(host.selected))} of ${number(table.size)} selected`;
  tellPassing();
  redraw();
  if (showMap) map.draw();
}

function tellPassing() {
  const changed = JSON.stringify(host.limits) !== JSON.stringify(host.saved);
  const shown = Boolean(host.passing) || changed;
  at("passing").hidden = !shown;
  if (at("limit-hint")) at("limit-hint").hidden = shown;
  if (!shown) return;
  const passing = host.passing ? count(host.passing) : host.table.size;
  at("pass-count").textContent = `${number(passing)} of ${number(host.table.size)} pass`;
  at("pass-count").dataset.passing = passing;
  const by = host.table.limitsBy;
  at("pass-note").textContent = changed ? "not saved" : by ? `set by ${by} at ${clock(new Date(host.table.limitsAt), false)}` : "";
  if (at("save-limits")) at("save-limits").hidden = !changed;
}

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

function limit(name, end, value) {
  const pair = host.limits[name] ?? [null, null];
  pair[end] = value;
  // A line can't be dragged past the other one.
  if (pair[0] !== null && pair[1] !== null && pair[0] > pair[1]) pair[end] = pair[1 - end];
  if (pair[0] === null && pair[1] === null) delete host.limits[name];
  else host.limits[name] = pair;
  fillLimits(name);
  select(false);
}

function fillLimits(only = null) {
  for (const field of page.querySelectorAll("[data-limit]")) {
    const { limit: name, end } = field.dataset;
    if ((only && only !== name) || field === document.activeElement) continue;
    const value = host.limits[name]?.[Number(end)] ?? null;
    const digits = (host.table.quantities[name]?.digits ?? 1) + 1;
    field.value = value === null ? "" : Number(value.toFixed(digits));
  }
}

async function saveLimits() {
  // What's saved is what the page counted with, to the last digit.
  try {
    const answer = await post(`${api}/limits${query({})}`, { values: host.limits });
    host.saved = structuredClone(answer.values);
    host.limits = structuredClone(answer.values);
    host.marking.say(`Limits saved: ${number(answer.passing)} of ${number(answer.total)} pass`, false);
    await refresh();
  } catch (error) {
    host.marking.say(error.message, false);
  }
}

for (const field of page.querySelectorAll("[data-limit]")) {
  field.addEventListener("input", () => {
    const value = field.value === "" ? null : Math.fround(Number(field.value));
    const { limit: name, end } = field.dataset;
    const other = host.limits[name]?.[1 - Number(end)] ?? null;
    const crossed = value !== null && other !== null && (end === "0" ? value > other : value < other);
    field.setCustomValidity(crossed ? "The lowest has to be below the highest" : "");
    if (!crossed) limit(name, Number(end), value);
  });
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

// ---- what a point says when the pointer is over it

const names = new Map();
const balloon = element("div", { class: "balloon", hidden: "" });
page.append(balloon);

function place(box, x, y) {
  const frame = box.getBoundingClientRect();
  const wide = rem() * 15;
  balloon.hidden = false;
  // Kept inside the window, on the side of the point that has room.
  const left = Math.min(frame.left + x + 14, innerWidth - wide - 8);
  const high = balloon.offsetHeight;
  const top = frame.top + y + 14 + high > innerHeight ? frame.top + y - high - 10 : frame.top + y + 14;
  balloon.style.setProperty("left", `${Math.max(4, left)}px`);
  balloon.style.setProperty("top", `${Math.max(4, top)}px`);
}

function tell(words, x, y, box) {
  if (!words) return (balloon.hidden = true);
  balloon.replaceChildren(element("b", {}, words[0]), ...words.slice(1).map((text) => element("span", {}, text)));
  place(box, x, y);
}

let pointed = -1;
function hover(plot, x, y, row = -1) {
  pointed = row;
  if (!plot || row < 0) return (balloon.hidden = true);
  const { table } = host;
  const id = table.columns.id[row];
  const known = names.get(id);
  const shown = table.quantities[plot.name];
  const moment = table.columns.t[row];
  const when = Number.isFinite(moment) ? `, ${clock(new Date(moment * 1000))}` : "";
  const mark = { 1: ", kept", 2: ", rejected by people" }[table.marks.get(id)] ?? "";
  balloon.replaceChildren(
    element("b", {}, known?.name ?? `exposure ${number(row + 1)}`),
    element("span", {}, `${shown.label} ${number(table.columns[plot.name][row], shown.digits)} ${shown.unit}`),
    element("small", {}, `number ${number(row + 1)}${when}, ${table.statuses[table.columns.status[row]]}${mark}`),
  );
  if (known?.thumbnail) balloon.append(element("img", { src: known.thumbnail, alt: "", width: "128", height: "128" }));
  place(plot.box, x, y);
  if (!known) whois(id).then(() => pointed === row && hover(plot, x, y, row));
}

async function whois(id) {
  try {
    const found = await fetchJson(`${api}/exposures/${id}${query({})}`);
    names.set(id, { name: found.item.split("/").pop(), thumbnail: found.pictures.thumbnail });
  } catch {
    names.set(id, { name: `exposure ${id}` });
  }
}

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
    redraw();
  }
  if (level) {
    map.level = level;
    press(button, "level");
    map.update();
  }
  if (markSelected && host.selected) {
    const ids = [];
    for (let i = 0; i < host.table.size; i++) if (host.selected[i]) ids.push(host.table.columns.id[i]);
    if (ids.length) host.marking.mark(ids, markSelected);
  }
  if (button.id === "open-selected") gallery.filter({ brush: writeBrushes(host.brushes), square: host.square, hole: host.hole });
  if (button.id === "clear-selection") clear();
  if (button.id === "save-limits") saveLimits();
  if (button.id === "reset-limits") {
    host.limits = {};
    fillLimits();
    select(false);
  }
  if (button.id === "help-button") {
    at("keys").hidden = !at("keys").hidden;
    button.setAttribute("aria-expanded", String(!at("keys").hidden));
  }
});

at("map-colour").addEventListener("change", (event) => {
  map.quantity = event.target.value;
  map.update();
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

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  redraw();
  map.draw();
  throughput.draw();
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
    await Promise.all([load(), new Promise((resolve) => setTimeout(resolve, 700))]);
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
load().catch((error) => (page.dataset.error = error.message));
follow(`${api}/live`, refresh);
