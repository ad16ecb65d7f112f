// Limits of the plots: dragged or typed, counted at once, saved for everybody.

import { clock, number } from "./core.js";
import { post } from "./marking.js";
import { count } from "./table.js";

const at = (id) => document.getElementById(id);

export class Limits {
  // host: {table, limits, passing, select, refresh, marking}; save: address that takes them
  constructor(page, host, save) {
    Object.assign(this, { host, save, saved: {}, loaded: false });
    this.fields = [...page.querySelectorAll("[data-limit]")];
    for (const field of this.fields) field.addEventListener("input", () => this.type(field));
    at("save-limits")?.addEventListener("click", () => this.keep());
    at("reset-limits")?.addEventListener("click", () => {
      host.limits = {};
      this.fill();
      host.select();
    });
  }

  get changed() {
    return JSON.stringify(this.host.limits) !== JSON.stringify(this.saved);
  }

  // Limits as they are saved, unless somebody here is changing them.
  take() {
    const { host } = this;
    if (this.loaded && JSON.stringify(host.table.limits) === JSON.stringify(this.saved)) return;
    const mine = this.loaded && this.changed;
    this.saved = structuredClone(host.table.limits);
    if (!mine) host.limits = structuredClone(host.table.limits);
    this.loaded = true;
    this.fill();
  }

  set(name, end, value) {
    const { limits } = this.host;
    const pair = limits[name] ?? [null, null];
    pair[end] = value;
    // A line can't be dragged past the other one.
    if (pair[0] !== null && pair[1] !== null && pair[0] > pair[1]) pair[end] = pair[1 - end];
    if (pair[0] === null && pair[1] === null) delete limits[name];
    else limits[name] = pair;
    this.fill(name);
    this.host.select();
  }

  type(field) {
    const value = field.value === "" ? null : Math.fround(Number(field.value));
    const { limit: name, end } = field.dataset;
    const other = this.host.limits[name]?.[1 - Number(end)] ?? null;
    const crossed = value !== null && other !== null && (end === "0" ? value > other : value < other);
    field.setCustomValidity(crossed ? "The lowest has to be below the highest" : "");
    if (!crossed) this.set(name, Number(end), value);
  }

  fill(only = null) {
    const { limits, table } = this.host;
    for (const field of this.fields) {
      const { limit: name, end } = field.dataset;
      if ((only && only !== name) || field === document.activeElement) continue;
      const value = limits[name]?.[Number(end)] ?? null;
      const digits = (table.quantities[name]?.digits ?? 1) + 1;
      const text = value === null ? "" : String(Number(value.toFixed(digits)));
      if (field.value !== text) field.value = text;
    }
  }

  tell() {
    const { changed } = this;
    const { passing, table } = this.host;
    const shown = Boolean(passing) || changed;
    at("passing").hidden = !shown;
    if (at("limit-hint")) at("limit-hint").hidden = shown;
    if (!shown) return;
    const pass = passing ? count(passing) : table.size;
    at("pass-count").textContent = `${number(pass)} of ${number(table.size)} pass`;
    at("pass-count").dataset.passing = pass;
    const by = table.limitsBy;
    at("pass-note").textContent = changed ? "not saved" : by ? `set by ${by} at ${clock(new Date(table.limitsAt), false)}` : "";
    if (at("save-limits")) at("save-limits").hidden = !changed;
  }

  async keep() {
    const { host } = this;
    // What's saved is what the page counted with, to the last digit.
    try {
      const answer = await post(this.save, { values: host.limits });
      this.saved = structuredClone(answer.values);
      host.limits = structuredClone(answer.values);
      host.marking.say(`Limits saved: ${number(answer.passing)} of ${number(answer.total)} pass`, false);
      await host.refresh();
    } catch (error) {
      host.marking.say(error.message, false);
    }
  }
}
