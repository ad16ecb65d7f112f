// Marks of people: keep, reject, comment, several at once, and undo. Shared by the pages that show exposures.

import { fetchJson, number } from "./core.js";

const deeds = { keep: "kept", reject: "rejected", comment: "commented" };

export async function post(url, body) {
  return fetchJson(url, {
    method: "POST",
    headers: { accept: "application/json", "content-type": "application/json", "x-csrf-token": document.body.dataset.csrf },
    body: JSON.stringify(body),
  });
}

// api: address of the session's API; changed: called after each deed
export class Marking {
  constructor(api, changed) {
    this.api = api;
    this.changed = changed;
    this.done = [];
    this.toast = document.getElementById("toast");
    document.getElementById("toast-undo")?.addEventListener("click", () => this.undo());
  }

  // Mark exposures; one that has the same mark already loses it when it's the only one.
  async mark(ids, kind) {
    let text = "";
    if (kind === "comment") {
      text = await this.ask(ids.length);
      if (!text) return;
    }
    try {
      const made = await post(`${this.api}/marks`, { exposures: ids, kind, text });
      this.done.push(made.marks);
      this.say(`${number(ids.length)} exposure${ids.length === 1 ? "" : "s"} ${deeds[kind]}`, true);
      this.changed();
    } catch (error) {
      this.say(error.message, false);
    }
  }

  async undo(marks = this.done.pop()) {
    if (!marks?.length) return;
    try {
      const answer = await post(`${this.api}/marks/undo`, { marks });
      this.say(`${number(answer.undone)} mark${answer.undone === 1 ? "" : "s"} undone`, false);
      this.changed();
    } catch (error) {
      this.say(error.message, false);
    }
  }

  ask(howMany) {
    const box = document.getElementById("comment-box");
    const text = document.getElementById("comment-text");
    text.value = "";
    document.getElementById("comment-title").textContent = howMany === 1 ? "Comment" : `Comment on ${number(howMany)} exposures`;
    box.returnValue = "cancel";
    box.showModal();
    return new Promise((resolve) => {
      box.addEventListener("close", () => resolve(box.returnValue === "save" ? text.value.trim() : ""), { once: true });
    });
  }

  say(words, canUndo) {
    if (!this.toast) return;
    document.getElementById("toast-text").textContent = words;
    document.getElementById("toast-undo").hidden = !canUndo;
    this.toast.hidden = false;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (this.toast.hidden = true), 12000);
  }
}
