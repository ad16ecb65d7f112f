// What a point says when the pointer is over it.

import { clock, element, fetchJson, number, rem } from "./core.js";

export class Balloon {
  // ask(id): address of an exposure's facts
  constructor(page, host, ask) {
    Object.assign(this, { host, ask });
    this.box = element("div", { class: "balloon", hidden: "" });
    page.append(this.box);
    this.names = new Map();
    this.pointed = -1;
  }

  hide() {
    this.pointed = -1;
    this.box.hidden = true;
  }

  // Kept inside the window, on the side of the point that has room.
  place(box, x, y) {
    const frame = box.getBoundingClientRect();
    const wide = rem() * 15;
    this.box.hidden = false;
    const left = Math.min(frame.left + x + 14, innerWidth - wide - 8);
    const high = this.box.offsetHeight;
    const top = frame.top + y + 14 + high > innerHeight ? frame.top + y - high - 10 : frame.top + y + 14;
    this.box.style.setProperty("left", `${Math.max(4, left)}px`);
    this.box.style.setProperty("top", `${Math.max(4, top)}px`);
  }

  // Some words; the first stands out.
  tell(words, x, y, box) {
    if (!words) return this.hide();
    this.box.replaceChildren(element("b", {}, words[0]), ...words.slice(1).map((text) => element("span", {}, text)));
    this.place(box, x, y);
  }

  // An exposure, by its row, as a plot shows it.
  hover(plot, x, y, row = -1) {
    this.pointed = row;
    if (!plot || row < 0) return this.hide();
    const { table } = this.host;
    const id = table.columns.id[row];
    const known = this.names.get(id);
    const shown = table.quantities[plot.name];
    const moment = table.columns.t[row];
    const when = Number.isFinite(moment) ? `, ${clock(new Date(moment * 1000))}` : "";
    const mark = { 1: ", kept", 2: ", rejected by people" }[table.marks.get(id)] ?? "";
    this.box.replaceChildren(
      element("b", {}, known?.name ?? `exposure ${number(row + 1)}`),
      element("span", {}, `${shown.label} ${number(table.columns[plot.name][row], shown.digits)} ${shown.unit}`),
      element("small", {}, `number ${number(row + 1)}${when}, ${table.statuses[table.columns.status[row]]}${mark}`),
    );
    if (known?.thumbnail) this.box.append(element("img", { src: known.thumbnail, alt: "", width: "128", height: "128" }));
    this.place(plot.box, x, y);
    if (!known) this.whois(id).then(() => this.pointed === row && this.hover(plot, x, y, row));
  }

  async whois(id) {
    try {
      const found = await fetchJson(this.ask(id));
      this.names.set(id, { name: found.item.split("/").pop(), thumbnail: found.pictures.thumbnail });
    } catch {
      this.names.set(id, { name: `exposure ${id}` });
    }
  }
}
