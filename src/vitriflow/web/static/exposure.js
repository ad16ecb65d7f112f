// One exposure's page: picks over the micrograph, CTF curves, shift track, keyboard travel.

import { colour, element, fetchJson, follow, keepTimes, number, rem } from "./core.js";
import { Marking } from "./marking.js";
import { Viewer } from "./viewer.js";
import { animation, axis, makeChart, text, tooltip } from "./chart.js";

const page = document.getElementById("exposure");
let exposure = null;

// ---- picks, over the micrograph wherever it's zoomed to

const overlay = document.getElementById("overlay");
const picture = document.getElementById("picture");
const slider = document.getElementById("score");
const toggle = document.getElementById("show-picks");
let picks = null;
let viewer = null;

function shownPicks() {
  const lowest = parseFloat(slider.value);
  return picks.score.map((score, i) => i).filter((i) => picks.score[i] === null || picks.score[i] >= lowest);
}

function drawPicks() {
  if (!picks || !overlay || !viewer) return;
  const ratio = window.devicePixelRatio || 1;
  const pen = viewer.clear(overlay);
  const shown = shownPicks();
  document.getElementById("score-value").textContent = number(parseFloat(slider.value), 3);
  document.getElementById("pick-count").textContent = `${number(shown.length)} of ${number(picks.x.length)}`;
  page.dataset.picks = String(toggle.checked ? shown.length : 0);
  if (!toggle.checked) return;
  const wide = picks.particle_diameter_A && picks.pixel_size_A ? picks.particle_diameter_A / picks.pixel_size_A : 0;
  const radius = Math.max((wide * viewer.scale) / 2, 4) * ratio;
  // A dark line under a bright one is seen on any micrograph.
  for (const [tint, grow] of [["rgb(0 0 0 / 55%)", 2], [colour("pick"), 0]]) {
    pen.strokeStyle = tint;
    pen.lineWidth = Math.max(1.4, rem() * 0.1) * ratio + grow;
    pen.beginPath();
    for (const i of shown) {
      // The first pixel's centre is (0, 0), so its corner is half a pixel before.
      const [px, py] = viewer.toScreen(picks.x[i] + 0.5, picks.y[i] + 0.5);
      const [x, y] = [px * ratio, py * ratio];
      pen.moveTo(x + radius, y);
      pen.arc(x, y, radius, 0, 2 * Math.PI);
    }
    pen.stroke();
  }
}

async function loadPicks() {
  if (!exposure.has_picks || !picture) return;
  picks = await fetchJson(page.dataset.picks);
  const scores = picks.score.filter((score) => score !== null);
  if (scores.length) {
    const low = Math.min(...scores);
    const high = Math.max(...scores);
    slider.min = low;
    slider.max = high;
    slider.value = picks.threshold !== null ? Math.min(Math.max(picks.threshold, low), high) : low;
  }
  document.getElementById("pick-tools").hidden = false;
  slider.addEventListener("input", drawPicks);
  toggle.addEventListener("change", drawPicks);
  drawPicks();
}

// ---- CTF curves

function record(role) {
  return exposure.nodes.find((node) => node.role === role)?.result ?? null;
}

function empty(id, isEmpty) {
  document.getElementById(id).classList.toggle("is-empty", isEmpty);
}

const CURVES = [
  ["spectrum", "spectrum", "series-1", 1.6],
  ["fit", "fit", "series-2", 1.6],
  ["correlation", "correlation", "series-3", 1.2],
];

function drawCurves() {
  const found = record("ctf")?.curves ?? {};
  const k = found.spatial_frequency_per_A ?? [];
  empty("curves", !k.length);
  if (!k.length) return;
  const legend = document.getElementById("curve-legend");
  for (const [name, label, tint] of CURVES) {
    if (found[name]?.length) legend.append(element("i", { "data-tint": tint }, label));
  }
  const fits = record("ctf").fit_resolution_A;
  const option = () => ({
    ...animation(),
    grid: { left: 4, right: rem(), top: rem() * 1.4, bottom: rem() * 1.5, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    xAxis: axis({
      type: "value",
      max: k[k.length - 1],
      name: "resolution (Å)",
      nameLocation: "middle",
      nameGap: rem() * 1.7,
      splitLine: { show: false },
      axisLabel: { ...text(), formatter: (value) => (value > 0 ? number(1 / value, 1) : "∞") },
    }),
    yAxis: axis({ type: "value", ...reachOf(found), axisLabel: { show: false }, splitNumber: 3 }),
    tooltip: tooltip({ trigger: "axis", formatter: (items) => curveHover(items) }),
    series: CURVES.filter(([name]) => found[name]?.length).map(([name, label, tint, width], place) => ({
      name: label,
      type: "line",
      showSymbol: false,
      data: k.map((x, i) => [x, found[name][i]]),
      lineStyle: { width, color: colour(tint) },
      itemStyle: { color: colour(tint) },
      clip: true,
      markLine:
        place === 0 && fits
          ? {
              silent: true,
              symbol: "none",
              lineStyle: { color: colour("muted"), type: "dashed" },
              label: { ...text(), formatter: `fits to ${number(fits, 2)} Å`, position: "end" },
              data: [{ xAxis: 1 / fits }],
            }
          : undefined,
    })),
  });
  makeChart(document.getElementById("curve-chart"), option);
}

// The spectrum's first percents rise far above its rings, and single points may too: leave them out.
function reachOf(found) {
  const values = CURVES.flatMap(([name]) => (found[name] ?? []).slice(Math.floor((found[name] ?? []).length * 0.04)));
  values.sort((a, b) => a - b);
  const at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))];
  const pad = (at(0.995) - at(0.005)) * 0.12 || 0.1;
  return { min: at(0.005) - pad, max: at(0.995) + pad };
}

function curveHover(items) {
  const box = element("div", { class: "hover" });
  const k = items[0].value[0];
  box.append(element("b", {}, k > 0 ? `${number(1 / k, 2)} Å` : "∞"));
  for (const item of items) box.append(element("span", {}, `${item.seriesName} ${number(item.value[1], 3)}`));
  return box;
}

// ---- shift track: the same scale in x and y, and y downwards as in the picture beside it

function drawTrack() {
  const motion = record("motion");
  const shifts = motion?.frame_shifts_A ?? [];
  empty("track", shifts.length < 2);
  if (shifts.length < 2) return;
  const patches = motion.patch_shifts_A ?? [];
  const box = document.getElementById("track-chart");
  document.getElementById("track-note").textContent =
    `${shifts.length} frames${patches.length ? `, ${patches.length} patches` : ", global only"}`;
  const points = [...shifts, ...patches.flat()];
  const reach = (at) => {
    const values = points.map((p) => p[at]);
    return [Math.min(...values), Math.max(...values)];
  };
  const option = () => {
    const [y0, y1] = reach(0);
    const [x0, x1] = reach(1);
    const padX = rem() * 3.4;
    const padY = rem() * 3.2;
    const perPx = Math.max((x1 - x0) / (box.clientWidth - padX), (y1 - y0) / (box.clientHeight - padY), 1e-4) * 1.1;
    const halfX = (perPx * (box.clientWidth - padX)) / 2;
    const halfY = (perPx * (box.clientHeight - padY)) / 2;
    const range = (middle, half) => ({ min: middle - half, max: middle + half });
    const show = (value) => number(value, halfX > 8 ? 0 : 1);
    const label = { ...text(), formatter: show, showMinLabel: false, showMaxLabel: false };
    const line = (data, extra) => ({ type: "line", data: data.map((p) => [p[1], p[0]]), showSymbol: false, ...extra });
    return {
      ...animation(),
      grid: { left: rem() * 2.4, right: rem(), top: rem() * 0.8, bottom: rem() * 2.4, containLabel: false },
      xAxis: axis({ type: "value", ...range((x0 + x1) / 2, halfX), axisLabel: label, name: "x (Å)", nameLocation: "middle", nameGap: rem() * 1.5, splitNumber: 4 }),
      yAxis: axis({ type: "value", inverse: true, ...range((y0 + y1) / 2, halfY), axisLabel: label, name: "y (Å)", nameLocation: "middle", nameGap: rem() * 1.6, splitNumber: 4 }),
      tooltip: tooltip({ trigger: "item", formatter: (item) => trackHover(item) }),
      series: [
        ...patches.map((patch) => line(patch, { silent: true, lineStyle: { color: colour("series-1"), width: 1, opacity: 0.35 }, z: 1 })),
        line(shifts, { name: "global", lineStyle: { color: colour("text"), width: 2 }, showSymbol: true, symbolSize: rem() * 0.4, itemStyle: { color: colour("text") }, z: 3 }),
        { type: "scatter", z: 4, symbolSize: rem() * 0.75, data: [[shifts[0][1], shifts[0][0]]], itemStyle: { color: colour("done") }, tooltip: { formatter: () => element("span", {}, "first frame") } },
        { type: "scatter", z: 4, symbolSize: rem() * 0.75, symbol: "rect", data: [[shifts.at(-1)[1], shifts.at(-1)[0]]], itemStyle: { color: colour("quarantined") }, tooltip: { formatter: () => element("span", {}, "last frame") } },
      ],
    };
  };
  makeChart(box, option);
}

function trackHover(item) {
  const box = element("div", { class: "hover" });
  box.append(element("b", {}, `frame ${item.dataIndex + 1}`));
  box.append(element("span", {}, `x ${number(item.value[0], 2)} Å, y ${number(item.value[1], 2)} Å`));
  return box;
}

// ---- travel by keyboard

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=range], select, textarea") || document.querySelector("dialog[open]")) return;
  if (event.defaultPrevented) return;
  const go = { ArrowLeft: "previous", k: "previous", ArrowRight: "next", j: "next", u: "up", Escape: "up" }[event.key];
  if (go) document.getElementById(go)?.click();
  if (event.key === "p" && toggle) {
    toggle.checked = !toggle.checked;
    drawPicks();
  }
  const kind = { y: "keep", x: "reject", r: "reject", c: "comment" }[event.key];
  if (kind && document.querySelector("#marks [data-mark]")) {
    event.preventDefault();
    marking.mark([exposure.id], kind);
  }
  if (event.key === "z" && marking.done.length) marking.undo();
});

// ---- marks of people

const marking = new Marking(page.dataset.sessionApi, showMarks);

async function showMarks() {
  const answer = await fetch(location.href);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("marks");
  document.getElementById("marks").replaceWith(document.adoptNode(fresh));
  page.dataset.marked = String(Number(page.dataset.marked ?? 0) + 1);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("#marks button");
  if (!button || !exposure) return;
  if (button.dataset.undo) marking.undo([Number(button.dataset.undo)]);
  else marking.mark([exposure.id], button.dataset.mark);
});

// ---- live: an open exposure is shown anew when a node leaves a result; the next one gets its link

const signature = (found) => JSON.stringify([found.status, found.nodes.map((node) => [node.node, node.revision, node.state])]);

async function refresh() {
  if (!exposure) return;
  const found = await fetchJson(page.dataset.api).catch(() => null);
  if (!found) return;
  if (signature(found) !== signature(exposure) || (found.next && !exposure.next)) location.reload();
}

keepTimes();
fetchJson(page.dataset.api)
  .then(async (found) => {
    exposure = found;
    drawCurves();
    drawTrack();
    const stage = document.getElementById("stage");
    if (stage) {
      viewer = new Viewer(stage, { ...(found.full ?? {}), preview: found.preview }, `${page.dataset.api.split("?")[0]}/tile`, page.dataset.api.split("?")[1], drawPicks);
      await viewer.ready;
    }
    await loadPicks();
    page.dataset.drawn = "1";
  })
  .catch((error) => {
    page.dataset.error = error.message;
  });
follow(page.dataset.live, refresh);
