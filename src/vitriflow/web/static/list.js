// The list of sessions: htmx fetches it again every few seconds; the lamp says whether that works.

import { keepTimes, setLive } from "./core.js";

keepTimes();
setLive("on", "live");
document.body.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) setLive("on", "live");
  else setLive("lost", "the server doesn't answer");
});
