// When plots and maps draw: what's on the screen with the next frame, the rest after it, one at a time,
// so that somebody who drags something waits only for what they see.

export class Views {
  constructor() {
    this.all = new Map(); // box -> view
    this.stale = new Set();
    this.shown = new Set();
    this.waiting = [];
    this.prepare = () => {}; // what has to be known before anything is drawn
    this.took = 0; // ms of script for what was on the screen
    this.watcher = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          const view = this.all.get(target);
          this.shown[isIntersecting ? "add" : "delete"](view);
          if (isIntersecting && this.stale.delete(view)) view.draw();
        }
      },
      { rootMargin: "10%" },
    );
  }

  // A view has a box and draw().
  add(view) {
    this.all.set(view.box, view);
    const { top, bottom } = view.box.getBoundingClientRect();
    if (bottom > 0 && top < innerHeight) this.shown.add(view);
    this.watcher.observe(view.box);
    return view;
  }

  // Draw some views anew, or all of them.
  redraw(views = this.all.values()) {
    for (const view of views) this.stale.add(view);
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      const began = performance.now();
      this.prepare();
      for (const view of this.stale) {
        if (!this.shown.has(view)) continue;
        this.stale.delete(view);
        view.draw();
      }
      this.took = performance.now() - began;
      clearTimeout(this.later);
      this.later = setTimeout(() => this.rest(), 30);
    });
  }

  rest() {
    if (this.asked) return;
    const [view] = this.stale;
    if (view) {
      this.stale.delete(view);
      view.draw();
      this.later = setTimeout(() => this.rest(), 0);
    } else for (const go of this.waiting.splice(0)) go();
  }

  // Resolves when nothing is left to draw.
  settled() {
    if (!this.asked && !this.stale.size) return Promise.resolve();
    return new Promise((go) => this.waiting.push(go));
  }
}
