// Zoom and pan over a micrograph: the preview first, then tiles of the full picture where they show more.

import { number } from "./core.js";

const TILE = 512;
const MOST = 8; // css px a pixel of the micrograph, at most

export class Viewer {
  // full: {width, height, result, preview: {width, height, scale}}; without width there are no tiles
  constructor(stage, full, tiles, query, changed) {
    Object.assign(this, { stage, full, tilesAt: tiles, query, changed });
    this.picture = stage.querySelector("#picture");
    this.canvas = stage.querySelector("#tiles");
    this.cache = new Map();
    this.scale = 0; // css px a pixel of the full micrograph
    this.drag = null;
    this.ready = (this.picture.complete ? Promise.resolve() : new Promise((go) => this.picture.addEventListener("load", go, { once: true }))).then(() => this.start());
  }

  start() {
    const { preview } = this.full;
    this.width = this.full.width ?? (preview.width || this.picture.naturalWidth) / (preview.scale || 1);
    this.height = this.full.height ?? (preview.height || this.picture.naturalHeight) / (preview.scale || 1);
    this.all();
    new ResizeObserver(() => this.resized()).observe(this.stage);
    const { stage } = this;
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 120) * 0.0022), ...this.within(event));
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest(".zoom")) return;
      this.drag = { x: event.clientX, y: event.clientY, left: this.left, top: this.top };
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!this.drag) return;
      this.left = this.drag.left - (event.clientX - this.drag.x) / this.scale;
      this.top = this.drag.top - (event.clientY - this.drag.y) / this.scale;
      this.draw();
    });
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, () => (this.drag = null));
    stage.addEventListener("dblclick", (event) => !event.target.closest(".zoom") && this.zoom(2, ...this.within(event)));
    stage.querySelector(".zoom").addEventListener("click", (event) => this.press(event.target.dataset.zoom));
    document.addEventListener("keydown", (event) => this.key(event), true); // before the page's own keys
  }

  within(event) {
    const frame = this.stage.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  press(what) {
    if (what === "in") this.zoom(1.5);
    if (what === "out") this.zoom(1 / 1.5);
    if (what === "one") this.zoom(1 / this.scale);
    if (what === "all") this.all();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea") || document.querySelector("dialog[open]")) return;
    if (event.key === "+" || event.key === "=") this.zoom(1.5);
    if (event.key === "-") this.zoom(1 / 1.5);
    if (event.key === "0") this.all();
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    // Only a picture that's zoomed into takes the arrows; else they lead to the next exposure.
    if (move && document.activeElement === this.stage && this.scale > this.least * 1.001) {
      event.preventDefault();
      event.stopImmediatePropagation();
      this.left += (move[0] * 80) / this.scale;
      this.top += (move[1] * 80) / this.scale;
      this.draw();
    }
  }

  get least() {
    return this.stage.clientWidth / this.width;
  }

  all() {
    this.scale = this.least;
    this.left = this.top = 0;
    this.draw();
  }

  resized() {
    if (this.scale <= this.lastLeast * 1.001) return this.all();
    this.draw();
  }

  // Zoom about a place of the stage (its middle unless told).
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.least), Math.max(MOST, this.least));
    this.left += x / this.scale - x / scale;
    this.top += y / this.scale - y / scale;
    this.scale = scale;
    this.draw();
  }

  toScreen(x, y) {
    return [(x - this.left) * this.scale, (y - this.top) * this.scale];
  }

  clear(canvas) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(this.stage.clientWidth * ratio);
    canvas.height = Math.round(this.stage.clientHeight * ratio);
    return canvas.getContext("2d");
  }

  draw() {
    const { stage, scale } = this;
    this.lastLeast = this.least;
    const roomX = this.width - stage.clientWidth / scale;
    const roomY = this.height - stage.clientHeight / scale;
    this.left = Math.min(Math.max(this.left, 0), Math.max(roomX, 0));
    this.top = Math.min(Math.max(this.top, 0), Math.max(roomY, 0));
    const factor = scale / this.least;
    this.picture.style.setProperty("transform", factor > 1.0001 ? `translate(${-this.left * scale}px, ${-this.top * scale}px) scale(${factor})` : "none");
    this.drawTiles();
    document.getElementById("zoom-value").textContent = `${number(100 * scale)} %`;
    stage.dataset.zoom = factor.toFixed(3);
    stage.dataset.left = this.left.toFixed(1);
    stage.dataset.top = this.top.toFixed(1);
    stage.classList.toggle("is-zoomed", factor > 1.001);
    this.changed();
  }

  drawTiles() {
    const pen = this.clear(this.canvas);
    const ratio = window.devicePixelRatio || 1;
    const shown = this.full.preview?.scale || 1;
    if (!this.full.width || this.scale * ratio < shown * 1.15) return;
    const level = Math.max(0, Math.floor(Math.log2(1 / (this.scale * ratio))));
    const step = TILE * 2 ** level;
    const right = Math.min(this.width, this.left + this.stage.clientWidth / this.scale);
    const bottom = Math.min(this.height, this.top + this.stage.clientHeight / this.scale);
    pen.imageSmoothingEnabled = this.scale * ratio < 3;
    let waiting = 0;
    for (let row = Math.floor(this.top / step); row * step < bottom; row++) {
      for (let column = Math.floor(this.left / step); column * step < right; column++) {
        const image = this.tile(level, column, row);
        if (!image.complete) waiting++;
        if (!image.complete || !image.naturalWidth) continue;
        const [x, y] = this.toScreen(column * step, row * step);
        const wide = 2 ** level * this.scale * ratio;
        pen.drawImage(image, x * ratio, y * ratio, image.naturalWidth * wide, image.naturalHeight * wide);
      }
    }
    this.stage.dataset.waiting = String(waiting);
  }

  tile(level, column, row) {
    const url = `${this.tilesAt}/${level}/${column}/${row}?${this.query ? `${this.query}&` : ""}result=${this.full.result ?? 0}`;
    if (!this.cache.has(url)) {
      const image = new Image();
      image.addEventListener("load", () => this.drawTiles());
      image.addEventListener("error", () => this.drawTiles());
      image.src = url;
      this.cache.set(url, image);
      if (this.cache.size > 400) this.cache.delete(this.cache.keys().next().value);
    }
    return this.cache.get(url);
  }
}
