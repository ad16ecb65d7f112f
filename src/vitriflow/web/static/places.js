// Exposures by the place where they were taken, and what each place yields, in typed arrays.

import { median } from "./table.js";

// Places of one level ("square", "hole" or "stage": each exposure by itself).
//
// order: rows of the table, place after place; those of place i are order[starts[i]] to
// order[starts[i + 1] - 1]. known: whether any place has a stage position; squares without one stand
// in rows, in the order in which they were taken.
export function gather(table, level) {
  const { columns } = table;
  if (!columns.x) return { size: 0, rows: [], counts: [], starts: [0], order: [], x: [], y: [], known: false, name: () => null };
  const found = level === "stage" ? single(table) : grouped(table, level);
  return found.known || level !== "square" ? onlyPlaced(found) : inRows(found);
}

function single({ columns, size }) {
  const order = new Int32Array(size);
  let n = 0;
  for (let row = 0; row < size; row++) if (Number.isFinite(columns.x[row])) order[n++] = row;
  const rows = order.subarray(0, n);
  const x = Float64Array.from(rows, (row) => columns.x[row]);
  const y = Float64Array.from(rows, (row) => columns.y[row]);
  const starts = Int32Array.from({ length: n + 1 }, (_, i) => i);
  return { size: n, rows, counts: new Int32Array(n).fill(1), starts, order: rows, x, y, known: n > 0, name: () => null };
}

function grouped(table, level) {
  const { columns, size } = table;
  const codes = columns[level];
  const words = level === "square" ? table.squares : table.holes;
  const all = words.length;
  const starts = new Int32Array(all + 1);
  for (let i = 0; i < size; i++) if (codes[i] >= 0) starts[codes[i] + 1]++;
  for (let c = 0; c < all; c++) starts[c + 1] += starts[c];
  const next = starts.slice();
  const order = new Int32Array(starts[all]);
  for (let i = 0; i < size; i++) if (codes[i] >= 0) order[next[codes[i]]++] = i;
  const places = {
    size: all, starts, order, x: new Float64Array(all), y: new Float64Array(all),
    rows: new Int32Array(all), counts: new Int32Array(all), known: false, name: (i) => words[i],
  };
  const scratch = new Float64Array(size);
  for (let c = 0; c < all; c++) {
    const own = level === "square" ? table.squareXY[words[c]] : null;
    places.rows[c] = order[starts[c]];
    places.counts[c] = starts[c + 1] - starts[c];
    places.x[c] = own ? own[0] : median(columns.x, order, starts[c], starts[c + 1], scratch);
    places.y[c] = own ? own[1] : median(columns.y, order, starts[c], starts[c + 1], scratch);
    if (Number.isFinite(places.x[c])) places.known = true;
  }
  return places;
}

// Only some of the places, in their order.
function some(places, keep) {
  const chosen = [];
  for (let i = 0; i < places.size; i++) if (keep(i)) chosen.push(i);
  if (chosen.length === places.size) return places;
  const starts = [0];
  const order = [];
  for (const i of chosen) {
    for (let k = places.starts[i]; k < places.starts[i + 1]; k++) order.push(places.order[k]);
    starts.push(order.length);
  }
  const { name } = places;
  return {
    size: chosen.length, starts, order, known: places.known, name: (i) => name(chosen[i]),
    x: chosen.map((i) => places.x[i]), y: chosen.map((i) => places.y[i]),
    rows: chosen.map((i) => places.rows[i]), counts: chosen.map((i) => places.counts[i]),
  };
}

const onlyPlaced = (places) => some(places, (i) => places.counts[i] && Number.isFinite(places.x[i]));

function inRows(places) {
  const found = some(places, (i) => places.counts[i] > 0);
  const across = Math.max(1, Math.ceil(Math.sqrt(found.size * 1.8)));
  const x = Float64Array.from({ length: found.size }, (_, i) => i % across);
  const y = Float64Array.from({ length: found.size }, (_, i) => -Math.floor(i / across));
  return { ...found, x, y };
}

// The median of a quantity at each place (the share for "usable"); NaN where nothing was measured.
export function medians(table, places, quantity) {
  const column = table.columns[quantity];
  const values = new Float64Array(places.size).fill(NaN);
  if (!column) return values;
  const { starts, order } = places;
  const scratch = new Float64Array(table.size);
  for (let i = 0; i < places.size; i++) {
    if (quantity === "usable") {
      let good = 0;
      for (let k = starts[i]; k < starts[i + 1]; k++) good += column[order[k]];
      values[i] = good / (starts[i + 1] - starts[i]);
    } else values[i] = median(column, order, starts[i], starts[i + 1], scratch);
  }
  return values;
}
