// Shared by all pages: numbers and times in words, colours from the style sheet, the live stream.

export const dash = "–";

const formats = new Map();

function format(digits) {
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return formats.get(digits);
}

export function number(value, digits = 0) {
  if (value === null || value === undefined || Number.isNaN(value)) return dash;
  return format(digits).format(value).replace("-", "−");
}

export function duration(seconds) {
  const s = Math.max(seconds, 0);
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 99.5) return `${s.toFixed(0)} s`;
  if (s < 5400) return `${(s / 60).toFixed(0)} min`;
  if (s < 48 * 3600) {
    const minutes = Math.round(s / 60);
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  }
  return `${(s / 86400).toFixed(0)} days`;
}

export function clock(date, seconds = true) {
  return date.toLocaleTimeString("en-GB", {
    hour: "2-digit",
    minute: "2-digit",
    ...(seconds ? { second: "2-digit" } : {}),
  });
}

// Asked for at each point that's drawn, so kept until something can have changed them.
const styles = new Map();
for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
  matchMedia(query).addEventListener("change", () => styles.clear());
}
addEventListener("resize", () => styles.clear());

function style(name, find) {
  if (!styles.has(name)) styles.set(name, find(getComputedStyle(document.documentElement)));
  return styles.get(name);
}

export function colour(name) {
  return style(name, (found) => found.getPropertyValue(`--${name}`).trim());
}

export function rem() {
  return style("", (found) => parseFloat(found.fontSize));
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export async function fetchJson(url, options = {}) {
  const answer = await fetch(url, { headers: { accept: "application/json" }, ...options });
  const body = await answer.json();
  if (!answer.ok) {
    const facts = body.error ?? {};
    throw new Error([facts.what, facts.found, facts.remedy].filter(Boolean).join(". ") || answer.statusText);
  }
  return body;
}

// ---- times that age, and times in the reader's own zone

function age() {
  const now = Date.now() / 1000;
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const since = now - parseFloat(time.dataset.ago);
    const text = since < 2 ? "just now" : `${duration(since)} ago`;
    if (time.textContent !== text) time.textContent = text;
    if (!time.title) {
      const moment = new Date(parseFloat(time.dataset.ago) * 1000);
      time.dateTime = moment.toISOString();
      time.title = moment.toLocaleString();
    }
  }
}

function localTimes() {
  for (const time of document.querySelectorAll("time[data-clock]")) {
    const moment = new Date(time.dateTime);
    if (time.title || Number.isNaN(moment.getTime())) continue;
    time.title = time.textContent;
    const today = moment.toDateString() === new Date().toDateString();
    time.textContent = today ? clock(moment) : `${moment.toLocaleDateString("en-CA")} ${clock(moment, false)}`;
  }
}

export function keepTimes() {
  age();
  localTimes();
  setInterval(age, 1000);
  document.body.addEventListener("htmx:afterSwap", () => {
    age();
    localTimes();
  });
}

// ---- the lamp in the head of the page

let lostAt = null;

export function setLive(state, text) {
  const lamp = document.getElementById("live");
  if (state === "lost") {
    lostAt ??= new Date();
    text = `not live since ${clock(lostAt, false)}${text ? `: ${text}` : ""}`;
  } else {
    lostAt = null;
  }
  lamp.dataset.state = state;
  const shown = document.getElementById("live-text");
  if (shown.textContent !== text) shown.textContent = text;
}

// ---- server-sent events, with a watchdog: a stream can be dead long before the browser knows

const SILENCE_MS = 12000;
const RETRY_MS = 2500;

export function follow(url, onChange) {
  let source = null;
  let heard = Date.now();

  function hear() {
    heard = Date.now();
    setLive("on", "live");
  }

  function connect() {
    source?.close();
    source = new EventSource(url);
    source.addEventListener("change", (event) => {
      hear();
      onChange(JSON.parse(event.data));
    });
    source.addEventListener("beat", hear);
    source.addEventListener("trouble", (event) => {
      heard = Date.now();
      setLive("lost", JSON.parse(event.data).trouble);
    });
    source.addEventListener("error", () => setLive("lost", ""));
  }

  connect();
  setInterval(() => {
    if (Date.now() - heard > SILENCE_MS) setLive("lost", "");
    // The browser gives up for good on an error answer (a server that is starting); we don't.
    if (source.readyState === EventSource.CLOSED || Date.now() - heard > 2 * SILENCE_MS) {
      heard = Math.max(heard, Date.now() - SILENCE_MS - 1);
      connect();
    }
  }, RETRY_MS);
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (event) => event.persisted && connect());
}
