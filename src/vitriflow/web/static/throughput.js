// Exposures an hour over time.

import { colour, number, rem } from "./core.js";
import { ticks, timeTicks } from "./scales.js";
import { finite } from "./table.js";

export class Throughput {
  constructor(box, host) {
    Object.assign(this, { box, host });
    this.canvas = document.createElement("canvas");
    box.replaceChildren(this.canvas);
    box.plot = this;
    new ResizeObserver(() => host.redraw([this])).observe(box);
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
