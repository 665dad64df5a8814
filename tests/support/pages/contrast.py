"""How well words stand out from what is behind them, as WCAG 2 counts it, worked out in the browser."""

from __future__ import annotations

from selenium.webdriver import Chrome

_SCRIPT = """
const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (top, under) => {
  const alpha = top.length > 3 ? top[3] : 1;
  return [0, 1, 2].map((i) => top[i] * alpha + under[i] * (1 - alpha));
};
const behind = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
};
const light = (colour) => {
  const [r, g, b] = colour.map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let worst = [21, ""];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const words = walker.currentNode.textContent.trim();
  const element = walker.currentNode.parentElement;
  if (!words || element.closest("svg, script, option") || !element.checkVisibility()) continue;
  const back = behind(element);
  const [one, two] = [light(over(parse(getComputedStyle(element).color), back)), light(back)].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (two + 0.05);
  if (ratio < worst[0]) worst = [ratio, words.slice(0, 60)];
}
const compare = (label, shape, kind) => {
  const style = getComputedStyle(shape);
  const paint = style[kind];
  const fill = paint === "none" ? [0, 0, 0, 0] : [...parse(paint).slice(0, 3), Number(style[`${kind}Opacity`])];
  const back = over(fill, behind(label.closest("svg").parentElement));
  const [one, two] = [light(parse(getComputedStyle(label).fill)), light(back)].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (two + 0.05);
  if (ratio < worst[0]) worst = [ratio, label.textContent.slice(0, 60)];
};
for (const label of document.querySelectorAll("svg .bar-label")) {
  const shape = label.previousElementSibling;
  if (label.checkVisibility() && shape.tagName === "rect") compare(label, shape, "fill");
}
for (const label of document.querySelectorAll("svg .names")) {
  if (!label.checkVisibility()) continue;
  for (const path of label.closest("svg").querySelectorAll(".cells path")) compare(label, path, "stroke");
}
return worst;
"""


def worst_contrast(window: Chrome) -> tuple[float, str]:
    """Return the lowest contrast of any words that are shown, and the words."""
    ratio, words = window.execute_script(_SCRIPT)
    return float(ratio), str(words)
