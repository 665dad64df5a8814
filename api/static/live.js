// Parts of a page that say hx-trigger="changed from:body" load themselves again when the service says that something
// changed, every two seconds at most. Nothing is asked for while nobody looks.
"use strict";
const PAUSE_MS = 2000;
let source = null;
let waiting = 0;
let told = 0;
const tell = () => {
  waiting = 0;
  told = Date.now();
  document.body.dispatchEvent(new Event("changed"));
};
const soon = () => { waiting ||= setTimeout(tell, Math.max(200, told + PAUSE_MS - Date.now())); };
const stop = () => {
  source?.close();
  source = null;
};
const listen = () => {
  if (document.hidden) return stop();
  if (source !== null) return undefined;
  source = new EventSource("/v1/events");
  source.addEventListener("changed", soon);
  return undefined;
};
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) soon();
  listen();
});
addEventListener("pagehide", stop);
addEventListener("pageshow", listen);

// What somebody has unfolded stays unfolded.
let open = [];
document.addEventListener("htmx:beforeSwap", () => {
  open = [...document.querySelectorAll("details[id][open]")].map((details) => details.id);
});
document.addEventListener("htmx:afterSettle", () => {
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
});
