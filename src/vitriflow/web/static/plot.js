// One quantity over exposures, with its distribution beside it, drawn on a canvas: quick enough to
// draw tens of thousands of points anew while something is dragged.

import { colour, number, rem } from "./core.js";
import { pack, ticks, timeTicks } from "./scales.js";

const FEW = 3000; // up to so many points each is drawn by itself; beyond, how many lie on each pixel
const BINS = 44;

export class Plot {
  // host: {table, axis, selected, passing, limits, mayLimit, hover, brush, limit, open}
  constructor(box, name, host) {
    this.box = box;
    this.name = name;
    this.host = host;
    this.canvas = document.createElement("canvas");
    box.replaceChildren(this.canvas);
    box.plot = this;
    this.rect = null;
    this.width = box.clientWidth;
    this.height = box.clientHeight;
    new ResizeObserver(() => {
      // Kept: asking for them while drawing would make the browser lay the page out each time.
      this.width = box.clientWidth;
      this.height = box.clientHeight;
      this.draw();
    }).observe(box);
    this.figure = box.closest("figure");
    this.listen();
  }

  // ---- where things are

  measure() {
    const unit = rem();
    const { width, height } = this;
    const { table, axis } = this.host;
    const column = table.columns[this.name];
    const size = table.size;
    if (this.known !== table.change || this.knownSize !== size) {
      const sample = [];
      const step = Math.max(1, Math.floor(size / 6000));
      let low = Infinity;
      let high = -Infinity;
      for (let i = 0; i < size; i++) {
        const value = column[i];
        if (!(Math.abs(value) < Infinity)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
        if (i % step === 0) sample.push(value);
      }
      sample.sort((a, b) => a - b);
      const at = (share) => sample[Math.min(sample.length - 1, Math.floor(share * sample.length))] ?? low;
      const spread = at(0.99) - at(0.01) || Math.abs(at(0.5)) * 0.2 || 1;
      // What lies far outside is drawn at the edge, so that it doesn't press all else together.
      this.low = Math.max(low, at(0.01) - spread);
      this.high = Math.min(high, at(0.99) + spread);
      if (this.low >= 0 && this.low < 0.6 * this.high) this.low = 0;
      const pad = (this.high - this.low || 1) * 0.06;
      if (this.low !== 0) this.low -= pad;
      this.high += pad;
      this.any = high >= low;
      this.known = table.change;
      this.knownSize = size;
    }
    const { found, digits } = ticks(this.low, this.high, Math.max(2, (height - 1.5 * unit) / (unit * 2.2)));
    const thousands = Math.abs(this.high) >= 10000 && digits === 0;
    this.labels = found.map((v) => [v, thousands ? `${number(v / 1000, v % 1000 ? 1 : 0)}k` : number(v, digits)]);
    const left = Math.max(2, ...this.labels.map(([, text]) => text.length)) * unit * 0.44 + unit * 0.35;
    const bottom = unit * 1.15;
    const right = unit * 0.75;
    const inner = width - left - right;
    const plotWidth = inner * 0.78;
    const times = axis === "t" ? this.host.timeRange() : null;
    const first = times ? times[0] : 0.5;
    const last = times ? times[1] : Math.max(size, 2) + 0.5;
    this.space = {
      width, height, left, top: unit * 0.35, bottom: height - bottom, plotRight: left + plotWidth,
      histLeft: left + plotWidth + unit * 0.3, right: width - right, first, last, unit,
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
    const { table } = this.host;
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
    const pen = this.canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (table.size > FEW) this.drawMany(pen, ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawAxes(pen);
    if (table.size <= FEW) this.drawFew(pen);
    this.drawHistogram(pen);
    this.drawLimits(pen);
    if (this.rect) this.drawRect(pen);
  }

  // 0 faint (not selected), 1 normal, 2 outside limits
  kind(i, selected, passing) {
    if (selected && !selected[i]) return 0;
    return passing && !passing[i] ? 2 : 1;
  }

  tints() {
    return [colour("none"), colour("series-1"), colour("series-2")];
  }

  drawFew(pen) {
    const { table, selected, passing, axis } = this.host;
    const column = table.columns[this.name];
    const at = table.columns[axis];
    const size = this.space.unit * (table.size < 80 ? 0.22 : table.size < 600 ? 0.16 : 0.11);
    const tints = this.tints();
    for (const kind of [0, 2, 1]) {
      pen.beginPath();
      for (let i = 0; i < table.size; i++) {
        if (!Number.isFinite(column[i]) || this.kind(i, selected, passing) !== kind) continue;
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

  drawMany(pen, ratio) {
    const { table, selected, passing, axis } = this.host;
    const column = table.columns[this.name];
    const at = table.columns[axis];
    const s = this.space;
    const wide = Math.max(2, Math.round((s.plotRight - s.left) * ratio));
    const high = Math.max(2, Math.round((s.bottom - s.top) * ratio));
    const counts = [new Uint16Array(wide * high), new Uint16Array(wide * high), new Uint16Array(wide * high)];
    const scaleX = (wide - 2) / (s.last - s.first);
    const scaleY = (high - 2) / (this.high - this.low);
    for (let i = 0; i < table.size; i++) {
      const value = column[i];
      if (!(Math.abs(value) < Infinity)) continue;
      const x = ((at[i] - s.first) * scaleX) | 0;
      let y = ((this.high - value) * scaleY) | 0;
      if (y < 0) y = 0;
      else if (y > high - 2) y = high - 2;
      if (x < 0 || x > wide - 2) continue;
      const kind = selected && !selected[i] ? 0 : passing && !passing[i] ? 2 : 1;
      const grid = counts[kind];
      const place = y * wide + x;
      grid[place]++;
      grid[place + 1]++;
      grid[place + wide]++;
      grid[place + wide + 1]++;
    }
    const image = pen.createImageData(wide, high);
    const pixels = new Uint32Array(image.data.buffer);
    const steps = this.tints().map((tint, kind) => {
      const most = kind === 0 ? 0.45 : 1;
      return Array.from({ length: 9 }, (_, k) => pack(tint, most * Math.min(1, 0.3 + 0.1 * k)));
    });
    for (const kind of [0, 2, 1]) {
      const grid = counts[kind];
      const shades = steps[kind];
      for (let p = 0; p < grid.length; p++) if (grid[p]) pixels[p] = shades[Math.min(grid[p], 8)];
    }
    pen.putImageData(image, Math.round(s.left * ratio), Math.round(s.top * ratio));
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

  drawHistogram(pen) {
    const { table, selected, passing } = this.host;
    const column = table.columns[this.name];
    const s = this.space;
    const kinds = [new Uint32Array(BINS), new Uint32Array(BINS), new Uint32Array(BINS)];
    const scale = BINS / (this.high - this.low);
    for (let i = 0; i < table.size; i++) {
      const value = column[i];
      if (!(Math.abs(value) < Infinity)) continue;
      let bin = ((value - this.low) * scale) | 0;
      bin = bin < 0 ? 0 : bin >= BINS ? BINS - 1 : bin;
      kinds[selected && !selected[i] ? 0 : passing && !passing[i] ? 2 : 1][bin]++;
    }
    let top = 1;
    for (let b = 0; b < BINS; b++) top = Math.max(top, kinds[0][b] + kinds[1][b] + kinds[2][b]);
    const step = (s.bottom - s.top) / BINS;
    const tints = this.tints();
    for (let b = 0; b < BINS; b++) {
      let x = s.histLeft;
      for (const kind of [1, 2, 0]) {
        const long = (kinds[kind][b] / top) * (s.right - s.histLeft);
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

  // ---- pointer

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => event.button === 0 && this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.end(event));
    canvas.addEventListener("pointercancel", () => this.stop());
    canvas.addEventListener("pointerleave", () => this.host.hover(null));
  }

  begin(event) {
    if (!this.space) return;
    const [x, y] = [event.offsetX, event.offsetY];
    this.canvas.setPointerCapture(event.pointerId);
    const s = this.space;
    if (this.host.mayLimit && x > s.right - 2) {
      const pair = this.host.limits[this.name] ?? [null, null];
      let end = Math.abs(y - this.limitY(1)) < Math.abs(y - this.limitY(0)) ? 1 : 0;
      if (pair[0] !== null && pair[1] !== null && this.limitY(0) === this.limitY(1)) end = y < this.limitY(0) ? 1 : 0;
      this.drag = { end };
      return;
    }
    this.drag = { x, y, hist: x > s.histLeft - 2, moved: false };
  }

  move(event) {
    if (!this.space) return;
    const [x, y] = [event.offsetX, event.offsetY];
    const s = this.space;
    const { drag } = this;
    if (!drag) {
      this.canvas.style.cursor = this.host.mayLimit && x > s.right - 2 ? "ns-resize" : this.nearest(x, y) >= 0 ? "pointer" : "crosshair";
      this.host.hover(this, x, y, x < s.plotRight + 2 ? this.nearest(x, y) : -1);
      return;
    }
    if ("end" in drag) {
      const outside = drag.end ? y <= s.top + 1 : y >= s.bottom - 1;
      this.host.limit(this.name, drag.end, outside ? null : Math.fround(this.value(y)));
      return;
    }
    if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < 5) return;
    drag.moved = true;
    this.host.hover(null);
    const clampX = (v) => Math.min(Math.max(v, s.left), s.plotRight);
    const clampY = (v) => Math.min(Math.max(v, s.top), s.bottom);
    const [x0, x1] = drag.hist ? [s.left, s.right] : [drag.x, x].map(clampX).sort((a, b) => a - b);
    const [y0, y1] = [drag.y, y].map(clampY).sort((a, b) => a - b);
    this.rect = [x0, y0, x1, y1];
    this.host.brush(this.brushOf(drag.hist), event.shiftKey, false);
  }

  brushOf(hist) {
    const [x0, y0, x1, y1] = this.rect;
    const s = this.space;
    const at = (x) => s.first + ((x - s.left) / (s.plotRight - s.left)) * (s.last - s.first);
    const digits = (v) => Number(v.toPrecision(9));
    return {
      quantity: this.name,
      low: y1 >= s.bottom - 1 ? -Infinity : digits(this.value(y1)),
      high: y0 <= s.top + 1 ? Infinity : digits(this.value(y0)),
      axis: this.host.axis,
      first: hist ? -Infinity : Number(at(x0).toFixed(2)),
      last: hist ? Infinity : Number(at(x1).toFixed(2)),
    };
  }

  end(event) {
    const { drag } = this;
    if (!drag) return;
    if ("end" in drag) this.host.limitDone();
    else if (drag.moved) this.host.brush(this.brushOf(drag.hist), event.shiftKey, true);
    else {
      const row = this.nearest(event.offsetX, event.offsetY);
      if (row >= 0 && event.offsetX < this.space.plotRight + 2) this.host.open(row);
    }
    this.stop();
  }

  stop() {
    this.drag = null;
    this.rect = null;
    this.draw();
  }

  // Row of the point nearest to a place, within a few pixels; -1 when there's none.
  nearest(x, y) {
    const { table, axis } = this.host;
    const column = table.columns[this.name];
    const at = table.columns[axis];
    const s = this.space;
    const scaleX = (s.plotRight - s.left) / (s.last - s.first);
    const scaleY = (s.bottom - s.top) / (this.high - this.low);
    let best = (s.unit * 0.6) ** 2;
    let row = -1;
    for (let i = 0; i < table.size; i++) {
      const dx = s.left + (at[i] - s.first) * scaleX - x;
      if (dx > 12 || dx < -12) continue;
      const py = s.bottom - (column[i] - this.low) * scaleY;
      const dy = Math.min(Math.max(py, s.top), s.bottom) - y;
      const far = dx * dx + dy * dy;
      if (far <= best) {
        best = far;
        row = i;
      }
    }
    return row;
  }
}
