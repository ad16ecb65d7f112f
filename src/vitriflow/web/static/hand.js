// What a pointer does on a plot: selects points, drags limits, points at an exposure, opens it.

export class Hand {
  constructor(plot) {
    this.plot = plot;
    this.host = plot.host;
    const { canvas } = plot;
    canvas.addEventListener("pointerdown", (event) => event.button === 0 && this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.end(event));
    canvas.addEventListener("pointercancel", () => this.stop());
    canvas.addEventListener("pointerleave", () => this.host.hover(null));
  }

  begin(event) {
    const { plot, host } = this;
    const s = plot.space;
    if (!s) return;
    const [x, y] = [event.offsetX, event.offsetY];
    plot.canvas.setPointerCapture(event.pointerId);
    if (host.mayLimit && x > s.right - 2) {
      const pair = host.limits[plot.name] ?? [null, null];
      let end = Math.abs(y - plot.limitY(1)) < Math.abs(y - plot.limitY(0)) ? 1 : 0;
      if (pair[0] !== null && pair[1] !== null && plot.limitY(0) === plot.limitY(1)) end = y < plot.limitY(0) ? 1 : 0;
      this.drag = { end };
      return;
    }
    this.drag = { x, y, hist: x > s.histLeft - 2, moved: false };
  }

  move(event) {
    const { plot, host, drag } = this;
    const s = plot.space;
    if (!s) return;
    const [x, y] = [event.offsetX, event.offsetY];
    if (!drag) {
      const near = x < s.plotRight + 2 ? this.nearest(x, y) : -1;
      plot.canvas.style.cursor = host.mayLimit && x > s.right - 2 ? "ns-resize" : near >= 0 ? "pointer" : "crosshair";
      host.hover(plot, x, y, near);
      return;
    }
    if ("end" in drag) {
      const outside = drag.end ? y <= s.top + 1 : y >= s.bottom - 1;
      host.limit(plot.name, drag.end, outside ? null : Math.fround(plot.value(y)));
      return;
    }
    if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < 5) return;
    drag.moved = true;
    host.hover(null);
    const clampX = (v) => Math.min(Math.max(v, s.left), s.plotRight);
    const clampY = (v) => Math.min(Math.max(v, s.top), s.bottom);
    const [x0, x1] = drag.hist ? [s.left, s.right] : [drag.x, x].map(clampX).sort((a, b) => a - b);
    const [y0, y1] = [drag.y, y].map(clampY).sort((a, b) => a - b);
    plot.rect = [x0, y0, x1, y1];
    host.brush(this.brush(), event.shiftKey, false);
  }

  brush() {
    const { plot } = this;
    const [x0, y0, x1, y1] = plot.rect;
    const s = plot.space;
    const { hist } = this.drag;
    const at = (x) => s.first + ((x - s.left) / (s.plotRight - s.left)) * (s.last - s.first);
    const digits = (v) => Number(v.toPrecision(9));
    return {
      quantity: plot.name,
      low: y1 >= s.bottom - 1 ? -Infinity : digits(plot.value(y1)),
      high: y0 <= s.top + 1 ? Infinity : digits(plot.value(y0)),
      axis: this.host.axis,
      first: hist ? -Infinity : Number(at(x0).toFixed(2)),
      last: hist ? Infinity : Number(at(x1).toFixed(2)),
    };
  }

  end(event) {
    const { drag, host, plot } = this;
    if (!drag) return;
    if (!("end" in drag) && drag.moved) host.brush(this.brush(), event.shiftKey, true);
    else if (!("end" in drag)) {
      const row = this.nearest(event.offsetX, event.offsetY);
      if (row >= 0 && event.offsetX < plot.space.plotRight + 2) host.open(row);
    }
    this.stop();
  }

  stop() {
    this.drag = null;
    this.plot.rect = null;
    this.host.redraw([this.plot]);
  }

  // Row of the point nearest to a place, within a few pixels; -1 when there's none.
  nearest(x, y) {
    const { table, axis } = this.host;
    const { name, low, high, space: s } = this.plot;
    const column = table.columns[name];
    const at = table.columns[axis];
    const scaleX = (s.plotRight - s.left) / (s.last - s.first);
    const scaleY = (s.bottom - s.top) / (high - low);
    let best = (s.unit * 0.6) ** 2;
    let row = -1;
    for (let i = 0; i < table.size; i++) {
      const dx = s.left + (at[i] - s.first) * scaleX - x;
      if (dx > 12 || dx < -12) continue;
      const py = s.bottom - (column[i] - low) * scaleY;
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
