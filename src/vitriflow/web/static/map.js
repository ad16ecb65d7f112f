// Where exposures lie: grid squares, foil holes or exposures on the stage, coloured by a quantity on a
// scale that colour-blind people can read (viridis).

import { colour, element, number, rem } from "./core.js";
import { pack } from "./scales.js";
import { gather, medians } from "./places.js";
import { quantile } from "./table.js";

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
const SAMPLE = 8000; // the scale's ends are taken from so many values

export class GridMap {
  // host: {table, selected, square, hole, choose, open, redraw, tell}
  constructor(box, scale, empty, host) {
    Object.assign(this, { box, scale, empty, host });
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    box.replaceChildren(this.canvas);
    box.plot = this;
    this.level = "square";
    this.quantity = "fit_resolution_A";
    [this.width, this.height] = [box.clientWidth, box.clientHeight];
    new ResizeObserver(() => {
      const [width, height] = [box.clientWidth, box.clientHeight];
      if (width === this.width && height === this.height) return;
      Object.assign(this, { width, height });
      host.redraw([this]);
    }).observe(box);
    this.canvas.addEventListener("pointermove", (event) => {
      const item = this.nearest(event.offsetX, event.offsetY);
      this.canvas.style.cursor = item < 0 ? "default" : "pointer";
      host.tell(item < 0 ? null : this.words(item), event.offsetX, event.offsetY, this.box);
    });
    this.canvas.addEventListener("pointerleave", () => host.tell(null));
    this.canvas.addEventListener("click", (event) => {
      const item = this.nearest(event.offsetX, event.offsetY);
      if (item >= 0) host.choose(this.level, { name: this.places.name(item), row: this.places.rows[item] });
    });
  }

  get shown() {
    return this.host.table.quantities[this.quantity];
  }

  label() {
    return this.quantity === "usable" ? "usable" : (this.shown?.label ?? "");
  }

  valueWords(value) {
    if (Number.isNaN(value)) return "not measured";
    return this.quantity === "usable" ? `${number(100 * value)} %` : number(value, this.shown?.digits ?? 1);
  }

  words(item) {
    const { places, values } = this;
    const count = places.counts[item];
    return [
      places.name(item) ?? `number ${number(places.rows[item] + 1)}`,
      `${this.label()} ${this.valueWords(values[item])}`,
      `${number(count)} exposure${count === 1 ? "" : "s"}`,
    ];
  }

  // Middle of a square or hole in page pixels, by its name.
  pixelOf(name) {
    const frame = this.box.getBoundingClientRect();
    for (let i = 0; i < this.places.size; i++) {
      if (this.places.name(i) === name) return [frame.left + this.px[i], frame.top + this.py[i]];
    }
    return null;
  }

  // Another level, or the exposures changed: places first, then what they show.
  update() {
    const { table } = this.host;
    const key = [table.change, table.size, this.level].join();
    if (this.gathered !== key) {
      this.gathered = key;
      this.places = gather(table, this.level);
      this.placed = "";
      this.coloured = "";
    }
    const tint = `${key} ${this.quantity}`;
    if (this.coloured !== tint) {
      this.coloured = tint;
      this.values = medians(table, this.places, this.quantity);
      this.tint();
    }
    this.stretch();
  }

  // Ends of the scale, and each place's shade (-1: not measured).
  tint() {
    const { values } = this;
    const step = Math.max(1, Math.floor(values.length / SAMPLE));
    const some = values.filter((value, i) => i % step === 0 && Number.isFinite(value)).sort();
    this.low = quantile(some, 0.03) ?? 0;
    this.high = quantile(some, 0.97) ?? 1;
    this.shades = new Int8Array(values.length);
    const scale = 63 / (this.high - this.low || 1);
    for (let i = 0; i < values.length; i++) {
      const at = Math.round((values[i] - this.low) * scale);
      this.shades[i] = Number.isNaN(values[i]) ? -1 : at < 0 ? 0 : at > 63 ? 63 : at;
    }
  }

  // Where each place lies in the picture.
  stretch() {
    const { places, width, height } = this;
    const unit = rem();
    const key = `${this.gathered} ${width} ${height} ${unit}`;
    if (this.placed === key) return;
    this.placed = key;
    const { x, y, size } = places;
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < size; i++) {
      if (x[i] < x0) x0 = x[i];
      if (x[i] > x1) x1 = x[i];
      if (y[i] < y0) y0 = y[i];
      if (y[i] > y1) y1 = y[i];
    }
    const per = Math.max((x1 - x0) / (width - 3 * unit), (y1 - y0) / (height - 3 * unit), 1e-9);
    this.px = new Float32Array(size);
    this.py = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      this.px[i] = width / 2 + (x[i] - (x0 + x1) / 2) / per;
      this.py[i] = height / 2 - (y[i] - (y0 + y1) / 2) / per;
    }
    const room = (width - 3 * unit) * (height - 3 * unit);
    this.half = Math.max(unit * 0.16, Math.min(unit * 0.9, Math.sqrt(room / Math.max(size, 1)) * 0.32));
  }

  draw() {
    const { table } = this.host;
    const { pen, canvas, width, height } = this;
    if (!width) return;
    if (table.size) this.update();
    const { places } = this;
    const none = !table.size || !places.size;
    this.box.closest("figure").classList.toggle("is-empty", none);
    this.empty.textContent = this.why(none);
    this.empty.hidden = !this.empty.textContent;
    this.empty.classList.toggle("below", !none);
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, wide, high);
    if (none) return this.scale.replaceChildren();
    const faint = this.unselected();
    if (places.size > MANY) this.drawMany(ratio, faint);
    else this.drawFew(ratio, faint);
    this.drawScale();
  }

  why(none) {
    if (!this.host.table.size) return "No exposures yet.";
    if (none) return "No exposure says where on the grid it lies: its files hold no stage position and no grid square.";
    return this.places.known ? "" : "No stage positions in the metadata: grid squares in the order in which they were taken.";
  }

  // Places none of whose exposures are selected; null while nothing is.
  unselected() {
    const { selected } = this.host;
    if (!selected) return null;
    const { size, starts, order } = this.places;
    const faint = new Uint8Array(size);
    for (let i = 0; i < size; i++) {
      faint[i] = 1;
      for (let k = starts[i]; k < starts[i + 1]; k++) {
        if (selected[order[k]]) {
          faint[i] = 0;
          break;
        }
      }
    }
    return faint;
  }

  drawFew(ratio, faint) {
    const { pen, places, px, py, half, host } = this;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const chosen = this.level === "square" ? host.square : this.level === "hole" ? host.hole : "";
    for (let i = 0; i < places.size; i++) {
      pen.fillStyle = this.shades[i] < 0 ? colour("none") : SHADES[this.shades[i]];
      pen.globalAlpha = faint?.[i] ? 0.25 : 1;
      if (this.level === "square") pen.fillRect(px[i] - half, py[i] - half, 2 * half, 2 * half);
      else {
        pen.beginPath();
        pen.arc(px[i], py[i], half, 0, 7);
        pen.fill();
      }
      pen.globalAlpha = 1;
      if (!chosen || chosen !== places.name(i)) continue;
      pen.strokeStyle = colour("text");
      pen.lineWidth = 2;
      pen.strokeRect(px[i] - half - 3, py[i] - half - 3, 2 * half + 6, 2 * half + 6);
    }
  }

  drawMany(ratio, faint) {
    const { canvas, pen, places, px, py, shades } = this;
    const { width, height } = canvas;
    if (this.image?.width !== width || this.image.height !== height) {
      this.image = new ImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const { pixels } = this;
    pixels.fill(0);
    const tints = [1, 0.22].map((alpha) => Uint32Array.from([...SHADES, colour("none")], (css) => pack(css, alpha)));
    const half = Math.max(1, Math.round(1.5 * ratio));
    // Faint ones first, so that what's selected lies on top.
    for (const pass of faint ? [1, 0] : [0]) {
      for (let i = 0; i < places.size; i++) {
        if (faint && faint[i] !== pass) continue;
        const tint = tints[pass][shades[i] < 0 ? SHADES.length : shades[i]];
        const [x, y] = [Math.round(px[i] * ratio), Math.round(py[i] * ratio)];
        const [left, right] = [Math.max(0, x - half), Math.min(width, x + half)];
        const bottom = Math.min(height, y + half);
        for (let j = Math.max(0, y - half); j < bottom; j++) pixels.fill(tint, j * width + left, j * width + right);
      }
    }
    pen.putImageData(this.image, 0, 0);
  }

  drawScale() {
    const key = `${this.coloured} ${this.low} ${this.high}`;
    if (this.scaled === key) return;
    this.scaled = key;
    const bar = element("canvas", { width: "120", height: "8", "aria-hidden": "true" });
    const pen = bar.getContext("2d");
    for (let x = 0; x < 120; x++) {
      pen.fillStyle = viridis(x / 119);
      pen.fillRect(x, 0, 1, 8);
    }
    const percent = this.quantity === "usable";
    const unit = percent ? "" : (this.shown?.unit ?? "");
    const label = this.level === "stage" ? this.label() : `${percent ? "share" : "median"}: ${this.label()}`;
    this.scale.replaceChildren(
      element("span", {}, this.valueWords(this.low)),
      bar,
      element("span", {}, `${this.valueWords(this.high)} ${unit}`.trim()),
      element("span", {}, label),
    );
  }

  // The place nearest to a point of the picture; -1 when there's none.
  nearest(x, y) {
    if (!this.places) return -1;
    const reach = Math.max(this.half ?? 0, 7) * 1.6;
    let best = reach * reach;
    let found = -1;
    for (let i = 0; i < this.places.size; i++) {
      const dx = this.px[i] - x;
      const dy = this.py[i] - y;
      const far = dx * dx + dy * dy;
      if (far < best) [best, found] = [far, i];
    }
    return found;
  }
}
