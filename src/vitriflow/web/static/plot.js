// One quantity over exposures, with its distribution beside it, drawn on a canvas: quick enough to
// draw tens of thousands of points anew while something is dragged.

import { colour, number, rem } from "./core.js";
import { BINS, Density } from "./density.js";
import { Hand } from "./hand.js";
import { ticks, timeTicks } from "./scales.js";

const FEW = 3000; // up to so many points each is drawn by itself; beyond, how many lie on each pixel

export class Plot {
  // host: {table, axis, kinds, limits, mayLimit, timeRange, redraw, hover, brush, limit, open}
  constructor(box, name, host) {
    this.box = box;
    this.name = name;
    this.host = host;
    this.canvas = document.createElement("canvas");
    // Points are written pixel by pixel, so that the picture is best kept where the script is.
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    box.replaceChildren(this.canvas);
    box.plot = this;
    this.density = new Density();
    this.rect = null;
    this.width = box.clientWidth;
    this.height = box.clientHeight;
    new ResizeObserver(() => {
      // Kept: asking for them while drawing would make the browser lay the page out each time.
      const [width, height] = [box.clientWidth, box.clientHeight];
      if (width === this.width && height === this.height) return;
      Object.assign(this, { width, height });
      host.redraw([this]);
    }).observe(box);
    this.figure = box.closest("figure");
    this.hand = new Hand(this);
  }

  // ---- where things are

  // The range that's shown. What lies far outside is drawn at the edge, so that it doesn't press all
  // else together.
  rangeOf({ least, p1, p99, most, median }) {
    const spread = p99 - p1 || Math.abs(median) * 0.2 || 1;
    let low = Math.max(least, p1 - spread);
    let high = Math.min(most, p99 + spread);
    if (low >= 0 && low < 0.6 * high) low = 0;
    const pad = (high - low || 1) * 0.06;
    if (low !== 0) low -= pad;
    high += pad;
    return [low, high];
  }

  measure() {
    const unit = rem();
    const { width, height, host } = this;
    const { table, axis } = host;
    const key = [table.change, table.size, axis, width, height, unit].join();
    if (this.measured === key) return this.space;
    this.measured = key;
    const known = table.quantities[this.name];
    this.any = Boolean(known?.count);
    if (!this.any) return null;
    [this.low, this.high] = this.rangeOf(known);
    const { found, digits } = ticks(this.low, this.high, Math.max(2, (height - 1.5 * unit) / (unit * 2.2)));
    const thousands = Math.abs(this.high) >= 10000 && digits === 0;
    this.labels = found.map((v) => [v, thousands ? `${number(v / 1000, v % 1000 ? 1 : 0)}k` : number(v, digits)]);
    const left = Math.max(2, ...this.labels.map(([, text]) => text.length)) * unit * 0.44 + unit * 0.35;
    const right = width - unit * 0.75;
    const plotRight = left + (right - left) * 0.78;
    const [first, last] = axis === "t" ? host.timeRange() : [0.5, Math.max(table.size, 2) + 0.5];
    this.space = {
      width, height, left, top: unit * 0.35, bottom: height - unit * 1.15, plotRight,
      histLeft: plotRight + unit * 0.3, right, first, last, unit,
    };
    return this.space;
  }

  x(value) {
    const s = this.space;
    return s.left + ((value - s.first) / (s.last - s.first)) * (s.plotRight - s.left);
  }

  y(value) {
    const s = this.space;
    const share = (value - this.low) / (this.high - this.low);
    return s.bottom - Math.min(Math.max(share, 0), 1) * (s.bottom - s.top);
  }

  value(y) {
    const s = this.space;
    return this.low + ((s.bottom - y) / (s.bottom - s.top)) * (this.high - this.low);
  }

  // Middle of an exposure's point in page pixels, by its number.
  pixelOf(n) {
    const frame = this.box.getBoundingClientRect();
    const { columns } = this.host.table;
    const at = this.host.axis === "n" ? n : columns.t[n - 1];
    return [frame.left + this.x(at), frame.top + this.y(columns[this.name][n - 1])];
  }

  // Page pixels of a limit's handle (end 0: lowest, 1: highest).
  handleOf(end) {
    const frame = this.box.getBoundingClientRect();
    return [frame.left + this.space.right + this.space.unit * 0.35, frame.top + this.limitY(end)];
  }

  limitY(end) {
    const value = this.host.limits[this.name]?.[end] ?? null;
    return value === null ? (end ? this.space.top : this.space.bottom) : this.y(value);
  }

  // ---- drawing

  draw() {
    const { table, kinds } = this.host;
    if (!table.columns[this.name] || !this.width) return;
    const space = this.measure();
    this.figure.classList.toggle("is-empty", !this.any);
    if (!this.any) return;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(space.width * ratio);
    const height = Math.round(space.height * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const { pen } = this;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, width, height);
    const histogram = this.countPoints(ratio);
    const many = table.size > FEW;
    if (many) this.density.paint(pen, Math.round(space.left * ratio), Math.round(space.top * ratio), this.tints());
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawAxes(pen);
    if (!many) this.drawFew(pen, kinds);
    this.drawHistogram(pen, histogram);
    this.drawLimits(pen);
    if (this.rect) this.drawRect(pen);
  }

  countPoints(ratio) {
    const { table, axis, kinds } = this.host;
    const s = this.space;
    this.density.place(`${this.measured} ${ratio}`, table.size, table.columns[axis], table.columns[this.name], {
      wide: Math.max(2, Math.round((s.plotRight - s.left) * ratio)),
      high: Math.max(2, Math.round((s.bottom - s.top) * ratio)),
      first: s.first, last: s.last, low: this.low, top: this.high,
    });
    return this.density.count(table.size, kinds);
  }

  tints() {
    return [colour("none"), colour("series-1"), colour("series-2")];
  }

  drawFew(pen, kinds) {
    const { table, axis } = this.host;
    const column = table.columns[this.name];
    const at = table.columns[axis];
    const size = this.space.unit * (table.size < 80 ? 0.22 : table.size < 600 ? 0.16 : 0.11);
    const tints = this.tints();
    for (const kind of kinds ? [0, 2, 1] : [1]) {
      pen.beginPath();
      for (let i = 0; i < table.size; i++) {
        if (!Number.isFinite(column[i]) || (kinds && kinds[i] !== kind)) continue;
        const x = this.x(at[i]);
        if (!Number.isFinite(x)) continue;
        const y = this.y(column[i]);
        pen.moveTo(x + size, y);
        if (kind === 2) pen.rect(x - size * 0.85, y - size * 0.85, size * 1.7, size * 1.7);
        else pen.arc(x, y, size, 0, 7);
      }
      pen.globalAlpha = kind === 0 ? 0.35 : 0.85;
      pen.fillStyle = tints[kind];
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  drawAxes(pen) {
    const s = this.space;
    pen.font = `${Math.round(s.unit * 0.72)}px ${colour("font")}`;
    pen.fillStyle = colour("muted");
    pen.strokeStyle = colour("line");
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.globalCompositeOperation = "destination-over";
    pen.beginPath();
    for (const [value] of this.labels) {
      pen.moveTo(s.left, Math.round(this.y(value)) + 0.5);
      pen.lineTo(s.right, Math.round(this.y(value)) + 0.5);
    }
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
    for (const [value, text] of this.labels) pen.fillText(text, s.left - s.unit * 0.25, this.y(value));
    pen.textBaseline = "alphabetic";
    pen.textAlign = "center";
    const most = Math.max(2, Math.floor((s.plotRight - s.left) / (s.unit * 3.2)));
    const base = s.height - s.unit * 0.25;
    if (this.host.axis === "n") {
      for (const value of ticks(s.first, s.last, most).found) {
        if (Number.isInteger(value) && value > 0) pen.fillText(number(value), this.x(value), base);
      }
    } else {
      const { found: moments, label } = timeTicks(s.first, s.last, most);
      for (const at of moments) pen.fillText(label(at), this.x(at), base);
    }
  }

  drawHistogram(pen, counts) {
    const s = this.space;
    const of = (kind, bin) => counts[kind * (BINS + 1) + bin];
    let top = 1;
    for (let b = 0; b < BINS; b++) top = Math.max(top, of(0, b) + of(1, b) + of(2, b));
    const step = (s.bottom - s.top) / BINS;
    const tints = this.tints();
    for (let b = 0; b < BINS; b++) {
      let x = s.histLeft;
      for (const kind of [1, 2, 0]) {
        const long = (of(kind, b) / top) * (s.right - s.histLeft);
        if (!long) continue;
        pen.globalAlpha = kind === 0 ? 0.35 : 0.85;
        pen.fillStyle = tints[kind];
        pen.fillRect(x, s.bottom - (b + 1) * step + 0.5, Math.max(long, 0.8), Math.max(step - 1, 0.8));
        x += long;
      }
    }
    pen.globalAlpha = 1;
  }

  drawLimits(pen) {
    const s = this.space;
    const pair = this.host.limits[this.name] ?? [null, null];
    for (const end of [0, 1]) {
      const y = this.limitY(end);
      const set = pair[end] !== null;
      if (set) {
        pen.strokeStyle = colour("series-2");
        pen.lineWidth = 1.5;
        pen.setLineDash([5, 3]);
        pen.beginPath();
        pen.moveTo(s.left, y);
        pen.lineTo(s.right, y);
        pen.stroke();
        pen.setLineDash([]);
      }
      if (!this.host.mayLimit) continue;
      const r = s.unit * 0.34;
      const x = s.right + r * 0.3;
      pen.fillStyle = set ? colour("series-2") : colour("none");
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(x + r * 1.5, y - r);
      pen.lineTo(x + r * 1.5, y + r);
      pen.fill();
    }
  }

  drawRect(pen) {
    const [x0, y0, x1, y1] = this.rect;
    pen.fillStyle = colour("accent");
    pen.strokeStyle = colour("accent");
    pen.lineWidth = 1;
    pen.globalAlpha = 0.15;
    pen.fillRect(x0, y0, x1 - x0, y1 - y0);
    pen.globalAlpha = 1;
    pen.strokeRect(x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0);
  }
}
