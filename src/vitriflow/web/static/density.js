// Tens of thousands of points as a picture: where each one lies is worked out once for a size and an
// axis, so that a selection or a limit that's dragged only counts them anew.

import { pack } from "./scales.js";

export const BINS = 44;
const SHADES = 9;

export class Density {
  constructor() {
    this.key = "";
    this.places = new Int32Array(0);
    this.bins = new Uint8Array(0);
  }

  // Places of points in a picture of wide x high pixels, and their bins. Points that have no value, or
  // lie outside, go to a place and a bin past the last, which nobody looks at.
  place(key, size, at, column, { wide, high, first, last, low, top }) {
    if (this.key === key) return;
    this.key = key;
    const room = wide * high;
    if (this.places.length < size) {
      this.places = new Int32Array(size + 2048);
      this.bins = new Uint8Array(size + 2048);
    }
    if (this.room !== room || this.wide !== wide) {
      Object.assign(this, { wide, high, room, stride: room + wide + 2 });
      this.counts = new Uint16Array(3 * this.stride);
      this.image = new ImageData(wide, high);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const { places, bins } = this;
    const scaleX = (wide - 2) / (last - first);
    const scaleY = (high - 2) / (top - low);
    const scaleBin = BINS / (top - low);
    for (let i = 0; i < size; i++) {
      const value = column[i];
      places[i] = room;
      bins[i] = BINS;
      if (!(Math.abs(value) < Infinity)) continue;
      const bin = ((value - low) * scaleBin) | 0;
      bins[i] = bin < 0 ? 0 : bin >= BINS ? BINS - 1 : bin;
      const x = ((at[i] - first) * scaleX) | 0;
      if (!(x >= 0 && x <= wide - 2)) continue;
      const y = ((top - value) * scaleY) | 0;
      places[i] = (y < 0 ? 0 : y > high - 2 ? high - 2 : y) * wide + x;
    }
  }

  // Counts of each kind (see kindsOf) on each pixel; returns those of each bin, kind after kind.
  count(size, kinds) {
    const { counts, places, bins, stride, wide } = this;
    const histogram = new Uint32Array(3 * (BINS + 1));
    counts.fill(0);
    for (let i = 0; i < size; i++) {
      const kind = kinds ? kinds[i] : 1;
      const place = kind * stride + places[i];
      counts[place]++;
      counts[place + 1]++;
      counts[place + wide]++;
      counts[place + wide + 1]++;
      histogram[kind * (BINS + 1) + bins[i]]++;
    }
    return histogram;
  }

  // The picture: what passes lies over what doesn't, and that over what isn't selected.
  paint(pen, left, top, tints) {
    const { counts, pixels, room, stride } = this;
    const shades = tints.map((tint, kind) =>
      Uint32Array.from({ length: SHADES }, (_, n) => pack(tint, (kind === 0 ? 0.45 : 1) * Math.min(1, 0.3 + 0.1 * n))),
    );
    const [faint, normal, outside] = shades;
    const last = SHADES - 1;
    for (let p = 0; p < room; p++) {
      const n = counts[stride + p];
      const o = counts[2 * stride + p];
      const f = counts[p];
      pixels[p] = n ? normal[n < last ? n : last] : o ? outside[o < last ? o : last] : f ? faint[f < last ? f : last] : 0;
    }
    pen.putImageData(this.image, left, top);
  }
}

// 0 faint (not selected), 1 normal, 2 outside limits, for each row; null when all are normal.
export function kindsOf(size, selected, passing) {
  if (!selected && !passing) return null;
  const kinds = new Uint8Array(size);
  for (let i = 0; i < size; i++) kinds[i] = selected && !selected[i] ? 0 : passing && !passing[i] ? 2 : 1;
  return kinds;
}
