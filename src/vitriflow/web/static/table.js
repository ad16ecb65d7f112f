// All columns of a processing in typed arrays, kept up to date by what changed; masks over them.

const KINDS = { f64: Float64Array, f32: Float32Array, u8: Uint8Array, i32: Int32Array };
const PIECE = 2048; // room is made in steps, so that a live session doesn't copy its columns each time

export class Table {
  constructor() {
    this.size = 0;
    this.change = -1;
    this.columns = {};
    this.quantities = {};
    this.limits = {};
    this.marks = new Map();
    this.commented = new Set();
    this.squares = [];
    this.holes = [];
    this.squareXY = {};
    this.statuses = [];
    this.kinds = [];
  }

  // Take in an answer of /table. Whether anything that's plotted changed.
  merge(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    if (head.reset) this.columns = {};
    const fresh = {};
    let at = 4 + length;
    for (const [name, kind] of head.columns) {
      const Kind = KINDS[kind];
      fresh[name] = new Kind(buffer, at, head.rows);
      at += head.rows * Kind.BYTES_PER_ELEMENT;
    }
    this.kinds = head.columns;
    const whole = head.reset;
    for (const [name, kind] of head.columns) {
      if (whole) this.columns[name] = fresh[name];
      else this.put(name, KINDS[kind], fresh[name], fresh.n, head.total);
    }
    const changed = whole || head.rows > 0 || head.total !== this.size;
    this.size = head.total;
    this.change = head.change;
    this.quantities = head.quantities;
    this.statuses = head.statuses;
    this.limits = head.limits;
    this.limitsBy = head.limits_by;
    this.limitsAt = head.limits_at;
    this.marks = new Map(head.marks[0].map((id, i) => [id, head.marks[1][i]]));
    this.commented = new Set(head.commented);
    this.squares = head.squares;
    this.holes = head.holes;
    this.squareXY = head.square_xy;
    return changed;
  }

  put(name, Kind, values, numbers, total) {
    let column = this.columns[name];
    if (!column || column.length < total) {
      const wider = new Kind(total + PIECE);
      if (column) wider.set(column.subarray(0, this.size));
      this.columns[name] = column = wider;
    }
    for (let i = 0; i < numbers.length; i++) column[numbers[i] - 1] = values[i];
  }

  row(id) {
    const ids = this.columns.id;
    let low = 0;
    let high = this.size - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (ids[middle] === id) return middle;
      if (ids[middle] < id) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  // Rows within all limits: what wasn't measured isn't within one.
  passing(limits) {
    const mask = new Uint8Array(this.size).fill(1);
    for (const [name, [low, high]] of Object.entries(limits)) {
      const column = this.columns[name];
      if (!column || (low === null && high === null)) continue;
      const least = low ?? -Infinity;
      const most = high ?? Infinity;
      for (let i = 0; i < mask.length; i++) {
        if (!(column[i] >= least && column[i] <= most)) mask[i] = 0;
      }
    }
    return mask;
  }

  // Rows that all brushes and the place hold; null when nothing is selected.
  selected(brushes, square, hole) {
    if (!brushes.length && !square && !hole) return null;
    const mask = new Uint8Array(this.size).fill(1);
    for (const brush of brushes) {
      const column = this.columns[brush.quantity];
      const axis = this.columns[brush.axis];
      const ranged = Number.isFinite(brush.first) || Number.isFinite(brush.last);
      for (let i = 0; i < mask.length; i++) {
        const value = column[i];
        if (!(value >= brush.low && value <= brush.high)) mask[i] = 0;
        else if (ranged && !(axis[i] >= brush.first && axis[i] <= brush.last)) mask[i] = 0;
      }
    }
    for (const [name, word, words] of [["square", square, this.squares], ["hole", hole, this.holes]]) {
      if (!word) continue;
      const code = words.indexOf(word);
      const column = this.columns[name];
      for (let i = 0; i < mask.length; i++) if (!column || column[i] !== code || code < 0) mask[i] = 0;
    }
    return mask;
  }
}

export function count(mask) {
  let n = 0;
  for (let i = 0; i < mask.length; i++) n += mask[i];
  return n;
}

export function finite(column, size) {
  const kept = new Float64Array(size);
  let n = 0;
  for (let i = 0; i < size; i++) if (Number.isFinite(column[i])) kept[n++] = column[i];
  return kept.subarray(0, n);
}

export function quantile(sorted, share) {
  if (!sorted.length) return null;
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

// Median of column[order[first]] to column[order[end - 1]], NaN when none of them is a number. scratch has
// room for all of them.
export function median(column, order, first, end, scratch) {
  let n = 0;
  for (let k = first; k < end; k++) {
    const value = column[order[k]];
    if (!Number.isFinite(value)) continue;
    // Few values, as a foil hole has, are put in order as they come.
    let at = n++;
    if (end - first <= 16) for (; at > 0 && scratch[at - 1] > value; at--) scratch[at] = scratch[at - 1];
    scratch[at] = value;
  }
  if (!n) return NaN;
  const sorted = scratch.subarray(0, n);
  if (end - first > 16) sorted.sort();
  return quantile(sorted, 0.5);
}

export function readBrushes(text) {
  return text
    .split(";")
    .filter(Boolean)
    .map((part) => {
      const [quantity, low, high, axis = "n", first = "-inf", last = "inf"] = part.split(":");
      const number = (word) => (word === "inf" ? Infinity : word === "-inf" ? -Infinity : Number(word));
      return { quantity, low: number(low), high: number(high), axis, first: number(first), last: number(last) };
    });
}

export function writeBrushes(brushes) {
  const word = (value) => (value === Infinity ? "inf" : value === -Infinity ? "-inf" : String(value));
  return brushes
    .map((b) => [b.quantity, word(b.low), word(b.high), b.axis, word(b.first), word(b.last)].join(":"))
    .join(";");
}
