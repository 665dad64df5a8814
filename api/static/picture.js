// Pointing at a cell shows the same bytes in both drawings of a figure.
"use strict";
for (const figure of document.querySelectorAll("figure")) {
  let lit = [];
  const light = (event) => {
    const at = event.target.dataset ? event.target.dataset.at : undefined;
    for (const cell of lit) cell.classList.remove("lit");
    lit = at === undefined ? [] : [...figure.querySelectorAll(`rect[data-at="${at}"]`)];
    for (const cell of lit) cell.classList.add("lit");
  };
  figure.addEventListener("pointerover", light);
  figure.addEventListener("pointerleave", light);
}
// A link to a picture that is folded away opens it.
const unfold = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", unfold);
unfold();
