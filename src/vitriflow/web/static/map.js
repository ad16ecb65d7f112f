// Where exposures lie: grid squares, foil holes or exposures on the stage, coloured by a quantity on a
// scale that colour-blind people can read (viridis); and exposures an hour over time.

import { colour, element, number, rem } from "./core.js";
import { finite, quantile } from "./table.js";
import { pack, ticks, timeTicks } from "./scales.js";

// Anchors of viridis (van der Walt and Smith, CC0).
const VIRIDIS = [
  [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [109, 205, 89], [180, 222, 44], [253, 231, 37],
];

export function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, VIRIDIS.length - 1);
  const [r, g, b] = VIRIDIS[low].map((v, i) => Math.round(v + (at - low) * (VIRIDIS[high][i] - v)));
  return `rgb(${r} ${g} ${b})`;
}

const SHADES = Array.from({ length: 64 }, (_, i) => viridis(i / 63));
const MANY = 1500; // beyond so many, places are dots written straight into the picture

export class GridMap {
  // host: {table, selected, square, hole, choose, open}
  constructor(box, scale, empty, host) {
    Object.assign(this, { box, scale, empty, host });
    this.canvas = document.createElement("canvas");
    box.replaceChildren(this.canvas);
    box.plot = this;
    this.level = "square";
    this.quantity = "fit_resolution_A";
    this.items = [];
    new ResizeObserver(() => this.draw()).observe(box);
    this.canvas.addEventListener("pointermove", (event) => {
      const item = this.nearest(event.offsetX, event.offsetY);
      this.canvas.style.cursor = item ? "pointer" : "default";
      host.tell(item ? this.words(item) : null, event.offsetX, event.offsetY, this.box);
    });
    this.canvas.addEventListener("pointerleave", () => host.tell(null));
    this.canvas.addEventListener("click", (event) => {
      const item = this.nearest(event.offsetX, event.offsetY);
      if (item) host.choose(this.level, item);
    });
  }

  label() {
    return this.quantity === "usable" ? "usable" : (this.host.table.quantities[this.quantity]?.label ?? "");
  }

  digits() {
    return this.quantity === "usable" ? 0 : (this.host.table.quantities[this.quantity]?.digits ?? 1);
  }

  words(item) {
    const value = this.quantity === "usable" ? `${number(100 * item.value)} %` : number(item.value, this.digits());
    return [item.name ?? `number ${number(item.row + 1)}`, `${this.label()} ${item.value === null ? "not measured" : value}`, `${number(item.count)} exposure${item.count === 1 ? "" : "s"}`];
  }

  // Groups of exposures with their place and the median of the quantity.
  gather() {
    const { table } = this.host;
    const { columns } = table;
    const value = columns[this.quantity];
    if (!columns.x || !value) return [];
    if (this.level === "stage") {
      const each = [];
      for (let row = 0; row < table.size; row++) {
        if (!Number.isFinite(columns.x[row])) continue;
        each.push({ row, x: columns.x[row], y: columns.y[row], value: Number.isFinite(value[row]) ? value[row] : null, count: 1, placed: true });
      }
      return each;
    }
    const groups = new Map();
    const codes = columns[this.level];
    const words = this.level === "square" ? table.squares : table.holes;
    for (let i = 0; i < table.size; i++) {
      const code = codes[i];
      if (code < 0) continue;
      let group = groups.get(code);
      if (!group) groups.set(code, (group = { name: words[code], row: i, xs: [], ys: [], values: [], count: 0 }));
      group.count++;
      if (Number.isFinite(columns.x[i])) {
        group.xs.push(columns.x[i]);
        group.ys.push(columns.y[i]);
      }
      if (Number.isFinite(value[i])) group.values.push(value[i]);
    }
    const middle = (list) => {
      if (!list.length) return null;
      list.sort((a, b) => a - b);
      return quantile(list, 0.5);
    };
    const found = [];
    for (const group of groups.values()) {
      const own = this.level === "square" ? table.squareXY[group.name] : null;
      const x = own ? own[0] : middle(group.xs);
      const y = own ? own[1] : middle(group.ys);
      const shown = this.quantity === "usable" ? group.values.reduce((a, b) => a + b, 0) / group.values.length : middle(group.values);
      found.push({ name: group.name, row: group.row, x, y, value: shown, count: group.count, placed: x !== null && y !== null });
    }
    return found;
  }

  // Without stage positions squares stand in rows, in the order in which they were taken.
  layOut(items) {
    if (items.some((item) => item.placed)) return items.filter((item) => item.placed);
    const across = Math.max(1, Math.ceil(Math.sqrt(items.length * 1.8)));
    items.forEach((item, i) => Object.assign(item, { x: i % across, y: -Math.floor(i / across) }));
    return items;
  }

  update() {
    this.stale = true;
    this.draw();
  }

  draw() {
    const { table } = this.host;
    if (!table.size || !this.box.clientWidth) return;
    if (this.stale || !this.items) {
      const all = this.gather();
      this.known = all.some((item) => item.placed);
      this.items = this.level === "square" || this.known ? this.layOut(all) : [];
      this.stale = false;
    }
    const { items } = this;
    const none = !items.length;
    this.box.closest("figure").classList.toggle("is-empty", none);
    this.empty.textContent = none
      ? "No exposure says where on the grid it lies: its files hold no stage position and no grid square."
      : this.known ? "" : "No stage positions in the metadata: grid squares in the order in which they were taken.";
    this.empty.hidden = !this.empty.textContent;
    this.empty.classList.toggle("below", !none);
    const ratio = window.devicePixelRatio || 1;
    const width = this.box.clientWidth;
    const height = this.box.clientHeight;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (none) return this.scale.replaceChildren();
    const values = finite(Float64Array.from(items, (item) => item.value ?? NaN), items.length).sort();
    const low = quantile(values, 0.03) ?? 0;
    const high = quantile(values, 0.97) ?? 1;
    const xs = items.map((item) => item.x);
    const ys = items.map((item) => item.y);
    const range = (list) => list.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    const [x0, x1] = range(xs);
    const [y0, y1] = range(ys);
    const unit = rem();
    const per = Math.max((x1 - x0) / (width - 3 * unit), (y1 - y0) / (height - 3 * unit), 1e-9) ;
    const size = Math.max(unit * 0.16, Math.min(unit * 0.9, Math.sqrt(((width - 3 * unit) * (height - 3 * unit)) / items.length) * 0.32));
    const chosen = this.level === "square" ? this.host.square : this.level === "hole" ? this.host.hole : "";
    const many = items.length > MANY;
    const dots = many ? pen.createImageData(this.canvas.width, this.canvas.height) : null;
    for (const item of items) {
      item.px = width / 2 + (item.x - (x0 + x1) / 2) / per;
      item.py = height / 2 - (item.y - (y0 + y1) / 2) / per;
      if (many) {
        this.dot(dots, item, (item.value - low) / (high - low || 1), ratio);
        continue;
      }
      pen.fillStyle = item.value === null ? colour("none") : viridis((item.value - low) / (high - low || 1));
      pen.globalAlpha = chosen && chosen !== item.name ? 0.35 : 1;
      if (this.level === "square") pen.fillRect(item.px - size, item.py - size, 2 * size, 2 * size);
      else {
        pen.beginPath();
        pen.arc(item.px, item.py, size, 0, 7);
        pen.fill();
      }
      pen.globalAlpha = 1;
      if (chosen && chosen === item.name) {
        pen.strokeStyle = colour("text");
        pen.lineWidth = 2;
        pen.strokeRect(item.px - size - 3, item.py - size - 3, 2 * size + 6, 2 * size + 6);
      }
    }
    if (many) pen.putImageData(dots, 0, 0);
    this.size = size;
    this.drawScale(low, high);
  }

  dot(image, item, share, ratio) {
    const pixels = (image.words ??= new Uint32Array(image.data.buffer));
    const tint = item.value === null ? pack(colour("none")) : pack(SHADES[Math.round(63 * Math.min(Math.max(share, 0), 1))]);
    const half = Math.max(1, Math.round(1.5 * ratio));
    const [x, y] = [Math.round(item.px * ratio), Math.round(item.py * ratio)];
    for (let j = Math.max(0, y - half); j < Math.min(image.height, y + half); j++) {
      for (let i = Math.max(0, x - half); i < Math.min(image.width, x + half); i++) pixels[j * image.width + i] = tint;
    }
  }

  drawScale(low, high) {
    const percent = this.quantity === "usable";
    const shown = (v) => (percent ? `${number(100 * v)} %` : number(v, this.digits()));
    const bar = element("canvas", { width: "120", height: "8", "aria-hidden": "true" });
    const pen = bar.getContext("2d");
    for (let x = 0; x < 120; x++) {
      pen.fillStyle = viridis(x / 119);
      pen.fillRect(x, 0, 1, 8);
    }
    const unit = percent ? "" : (this.host.table.quantities[this.quantity]?.unit ?? "");
    this.scale.replaceChildren(element("span", {}, shown(low)), bar, element("span", {}, `${shown(high)} ${unit}`.trim()), element("span", {}, this.level === "stage" ? this.label() : `${percent ? "share" : "median"}: ${this.label()}`));
  }

  nearest(x, y) {
    let best = Math.max(this.size ?? 0, 7) * 1.6;
    let found = null;
    for (const item of this.items) {
      const far = Math.hypot(item.px - x, item.py - y);
      if (far < best) [best, found] = [far, item];
    }
    return found;
  }
}

// Exposures an hour over time.
export class Throughput {
  constructor(box, host) {
    Object.assign(this, { box, host });
    this.canvas = document.createElement("canvas");
    box.replaceChildren(this.canvas);
    box.plot = this;
    new ResizeObserver(() => this.draw()).observe(box);
  }

  draw() {
    const { table } = this.host;
    const moments = table.columns.t ? finite(table.columns.t, table.size) : [];
    this.box.closest("figure").classList.toggle("is-empty", !moments.length);
    if (!moments.length || !this.box.clientWidth) return;
    const [first, last] = this.host.timeRange();
    const bins = 40;
    const counts = new Uint32Array(bins);
    const wide = (last - first) / bins;
    for (const at of moments) counts[Math.min(bins - 1, Math.max(0, Math.floor((at - first) / wide)))]++;
    const rates = Array.from(counts, (n) => (n * 3600) / wide);
    const ratio = window.devicePixelRatio || 1;
    const width = this.box.clientWidth;
    const height = this.box.clientHeight;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const unit = rem();
    const top = Math.max(...rates) * 1.06;
    const left = unit * (0.5 + 0.46 * number(top).length);
    const bottom = height - unit * 1.15;
    const y = (v) => bottom - (v / top) * (bottom - unit * 0.35);
    pen.font = `${Math.round(unit * 0.72)}px ${colour("font")}`;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const v of ticks(0, top, (bottom - unit) / (unit * 2.2)).found) {
      pen.strokeStyle = colour("line");
      pen.beginPath();
      pen.moveTo(left, Math.round(y(v)) + 0.5);
      pen.lineTo(width - unit * 0.5, Math.round(y(v)) + 0.5);
      pen.stroke();
      pen.fillStyle = colour("muted");
      pen.fillText(number(v), left - unit * 0.25, y(v));
    }
    const step = (width - unit * 0.5 - left) / bins;
    pen.fillStyle = colour("series-1");
    rates.forEach((rate, i) => pen.fillRect(left + i * step + 0.5, y(rate), Math.max(1, step - 1), bottom - y(rate)));
    pen.fillStyle = colour("muted");
    pen.textAlign = "center";
    pen.textBaseline = "alphabetic";
    const { found, label } = timeTicks(first, last, Math.max(2, Math.floor((width - left) / (unit * 4))));
    for (const at of found) pen.fillText(label(at), left + ((at - first) / (last - first)) * step * bins, height - unit * 0.25);
    const hours = (moments.reduce((a, b) => Math.max(a, b), 0) - moments.reduce((a, b) => Math.min(a, b), Infinity)) / 3600;
    this.box.closest("figure").querySelector(".now").textContent = hours > 0 ? `mean ${number(moments.length / hours)} an hour` : "";
  }
}
