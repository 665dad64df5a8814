// Parts of a page that say hx-trigger="changed from:body" load themselves again when the service says that something
// changed. Nothing is asked for while nobody looks.
"use strict";
let source = null;
let waiting = 0;
const tell = () => {
  waiting = 0;
  document.body.dispatchEvent(new Event("changed"));
};
const listen = () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else if (source === null) {
    source = new EventSource("/v1/events");
    source.addEventListener("changed", () => { waiting ||= setTimeout(tell, 300); });
  }
};
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) tell();
  listen();
});
addEventListener("pagehide", () => { source?.close(); source = null; });
addEventListener("pageshow", listen);
