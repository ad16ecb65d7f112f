// Ticks of axes, and colours as a canvas keeps its pixels.

import { clock } from "./core.js";

const TIME_STEPS = [60, 300, 600, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000];

export function ticks(low, high, most) {
  const raw = (high - low) / Math.max(most, 1);
  const ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * ten).find((s) => s >= raw * 0.999) ?? ten * 10;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) found.push(value);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

export function timeTicks(low, high, most) {
  const step = TIME_STEPS.find((s) => (high - low) / s <= most) ?? TIME_STEPS.at(-1);
  const offset = new Date(high * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((low - offset) / step) * step + offset; at <= high; at += step) found.push(at);
  const label = (at) => {
    const moment = new Date(at * 1000);
    return step >= 86400 ? moment.toLocaleDateString("en-CA").slice(5) : clock(moment, false);
  };
  return { found, label };
}

// A colour of the style sheet as 0xAABBGGRR, as a canvas keeps its pixels.
const packed = new Map();
export function pack(css, opacity = 1) {
  const key = `${css} ${opacity}`;
  if (!packed.has(key)) {
    const pen = new OffscreenCanvas(1, 1).getContext("2d");
    pen.fillStyle = css;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = pen.getImageData(0, 0, 1, 1).data;
    packed.set(key, ((Math.round(255 * opacity) << 24) | (b << 16) | (g << 8) | r) >>> 0);
  }
  return packed.get(key);
}
