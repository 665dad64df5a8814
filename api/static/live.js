// Elements with hx-trigger="changed from:body" reload when the service reports a change, every two seconds at most.
// A hidden page requests nothing.
"use strict";
const PAUSE_MS = 2000;
const EVENTS = new URL("../v1/events", document.currentScript.src); // below the root path, as this script is
let source = null;
let timer = 0;
let lastDispatch = 0;
const dispatch = () => {
  timer = 0;
  lastDispatch = Date.now();
  document.body.dispatchEvent(new Event("changed"));
};
const schedule = () => { timer ||= setTimeout(dispatch, Math.max(200, lastDispatch + PAUSE_MS - Date.now())); };
const disconnect = () => {
  source?.close();
  source = null;
};
const connect = () => {
  if (document.hidden) return disconnect();
  if (source !== null) return undefined;
  source = new EventSource(EVENTS);
  source.addEventListener("changed", schedule);
  return undefined;
};
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) schedule();
  connect();
});
addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);

// Empty fields of a form are no parameters.
document.addEventListener("htmx:configRequest", ({ detail }) => {
  for (const [name, value] of Object.entries(detail.parameters)) if (value === "") delete detail.parameters[name];
});

// Unfolded details stay unfolded.
let openIds = [];
document.addEventListener("htmx:beforeSwap", () => {
  openIds = [...document.querySelectorAll("details[id][open]")].map((details) => details.id);
});
document.addEventListener("htmx:afterSettle", () => {
  for (const id of openIds) document.getElementById(id)?.setAttribute("open", "");
});
