// The gallery: its filters, travel by keyboard, and marks from its cards.

export class Gallery {
  // host: {marking, clear}
  constructor(host) {
    this.host = host;
    this.form = document.getElementById("filters");
    this.window = document.getElementById("gallery-window");
    this.listen();
  }

  get(name) {
    return this.form.elements[name]?.value ?? "";
  }

  // Set filters and show what passes them.
  filter(values, scroll = true) {
    for (const [name, value] of Object.entries(values)) {
      const field = this.form.elements[name];
      if (field) field.value = value;
    }
    this.form.dispatchEvent(new CustomEvent("filter", { bubbles: true }));
    this.remember();
    if (scroll) this.show();
  }

  show() {
    const gallery = document.getElementById("gallery");
    gallery.scrollIntoView({ block: "start" });
    this.focusFirst = true;
  }

  remember() {
    const kept = new URLSearchParams();
    for (const [name, value] of new FormData(this.form)) {
      if (value && !(name === "status" && value === "all") && !(name === "sort" && value === "newest") && !(name === "order" && value === "desc")) kept.set(name, value);
    }
    const text = kept.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  }

  cards() {
    return [...this.window.querySelectorAll(".card")];
  }

  current() {
    return document.activeElement?.closest(".slot")?.querySelector(".card") ?? null;
  }

  // One step on or back; by rows with the arrows up and down.
  travel(step, rows) {
    const cards = this.cards();
    if (!cards.length) return;
    const now = this.current();
    if (!now) return cards[0].focus();
    let by = step;
    if (rows) {
      const top = now.closest(".slot").offsetTop;
      const across = cards.filter((card) => card.closest(".slot").offsetTop === top).length;
      by = step * across;
    }
    const next = cards[cards.indexOf(now) + by];
    if (next) return next.focus();
    const button = this.window.querySelector(step > 0 ? ".pager button:last-child" : ".pager button:first-child");
    if (button && !button.disabled) {
      this.after = step > 0 ? "first" : "last";
      button.click();
    }
  }

  listen() {
    this.form.addEventListener("change", (event) => {
      const { target } = event;
      if (target.dataset.into) {
        this.form.elements[target.dataset.into].value = target.value;
        if (target.dataset.into === "square") this.host.chosen(target.value);
      }
      // Another status drops the reason that was asked for with the old one.
      if (target.name === "status") this.form.elements.reason.value = "";
      this.remember();
    });
    document.body.addEventListener("htmx:beforeRequest", (event) => {
      // A live change must not move a page of the gallery under somebody who reads an older one.
      const live = event.detail.requestConfig.triggeringEvent?.type === "live";
      const later = Number(document.getElementById("gallery-offset")?.value) > 0;
      if (live && event.detail.elt === this.window && later) event.preventDefault();
    });
    document.body.addEventListener("htmx:beforeSwap", (event) => {
      if (event.detail.target !== this.window) return;
      const now = this.current();
      this.held = now ? { id: now.dataset.id, button: document.activeElement.dataset.mark ?? "" } : null;
    });
    document.body.addEventListener("htmx:afterSwap", (event) => {
      if (event.detail.target !== this.window) return;
      const cards = this.cards();
      const held = this.held && cards.find((card) => card.dataset.id === this.held.id);
      if (held) {
        const inside = this.held.button ? held.parentElement.querySelector(`[data-mark="${this.held.button}"][data-exposure]`) : held;
        (inside ?? held).focus({ preventScroll: true });
      } else if (this.after || this.focusFirst) (this.after === "last" ? cards.at(-1) : cards[0])?.focus({ preventScroll: this.focusFirst });
      this.after = this.focusFirst = null;
      this.held = null;
    });
    this.window.addEventListener("click", (event) => {
      const button = event.target.closest("[data-exposure]");
      if (button) this.host.marking.mark([Number(button.dataset.exposure)], button.dataset.mark);
      if (event.target.closest("[data-clear]")) this.host.clear();
    });
    document.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input, select, textarea")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const steps = { j: [1], k: [-1], ArrowRight: [1], ArrowLeft: [-1], ArrowDown: [1, true], ArrowUp: [-1, true] };
    const inside = this.current();
    if (steps[key] && (inside || key === "j" || key === "k")) {
      event.preventDefault();
      return this.travel(...steps[key]);
    }
    const kinds = { y: "keep", x: "reject", r: "reject", c: "comment" };
    if (kinds[key] && inside && this.window.querySelector("[data-exposure]")) {
      event.preventDefault();
      return this.host.marking.mark([Number(inside.dataset.id)], kinds[key]);
    }
    if (key === "z") this.host.marking.undo();
    if (key === "Escape") this.host.clear();
    if (key === "?") document.getElementById("help-button").click();
  }
}
