// Layout pictures: pointing at a cell names it and marks it in both drawings of its figure.
"use strict";
const HALVES = { g: "gate row", u: "up row", r: "row" };
const numbers = (text) => text.split(" ").map(Number);
// "g0:20+9*16" is 16 values of g0 to g15 from 20 on, 9 apart.
const series = (text) => text.split(" ").flatMap((one) => {
  const [, prefix, first, value, step, count] = one.match(/^(\D*)(\d+):(\d+)\+(-?\d+)\*(\d+)$/);
  return Array.from({ length: count }, (_, index) => [prefix, Number(first) + index, Number(value) + index * step]);
});

// Everything about the cells of a figure, from its data attributes; an address is the row's plus the column's.
const cellsOf = (figure) => {
  const [unit, bytes, run] = figure.dataset.unit.split(" ");
  const [liveRows, liveK] = numbers(figure.dataset.live);
  const columns = series(figure.dataset.columns);
  const cells = series(figure.dataset.rows).flatMap(([half, row, start]) => columns.map(([, piece, offset], column) => {
    const k = piece * run;
    return { half, row, k, column, address: start + offset, pad: row >= liveRows || k >= liveK };
  }));
  return { unit, bytes: Number(bytes), run: Number(run), cells };
};

const wordsOf = ({ unit, bytes, run }, cell) => {
  const span = run > 1 ? `s ${cell.k}–${cell.k + run - 1}` : ` ${cell.k}`;
  const piece = unit === "value" ? "" : `, ${unit}${span}`;
  const place = (cell.address * bytes).toLocaleString("en").replaceAll(",", "\u202f");
  return `expert 0, ${HALVES[cell.half]} ${cell.row}${piece} lies at byte ${place}${cell.pad ? " (padding)" : ""}`;
};

// One drawing: which cell is at a point, and where a cell is. Rows are named; lines of memory are numbered.
const CELLS_PER_LINE = 16;
const drawingOf = (svg, { run, cells }) => {
  const [left, width, height] = numbers(svg.dataset.grid);
  const tops = new Map(series(svg.dataset.lines).map(([half, line, top]) => [half + line, top]));
  const inMemory = (cell) => {
    const place = cell.address / run;
    return [String(Math.floor(place / CELLS_PER_LINE)), place % CELLS_PER_LINE];
  };
  const byRow = (cell) => [cell.half + cell.row, cell.column];
  const where = svg.id.endsWith("-memory") ? inMemory : byRow;
  const placed = cells.flatMap((cell) => {
    const [line, column] = where(cell);
    return tops.has(line) ? [{ cell, x: left + column * width, y: tops.get(line) }] : [];
  });
  const mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  mark.setAttribute("class", "marked");
  mark.setAttribute("width", width - 1);
  mark.setAttribute("height", height - 1);
  const at = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const inside = ({ x, y }) => point.x >= x && point.x < x + width && point.y >= y && point.y < y + height;
    return placed.find(inside)?.cell;
  };
  const show = (cell) => {
    const found = placed.find((entry) => entry.cell === cell);
    if (!found) return mark.remove();
    mark.setAttribute("x", found.x);
    mark.setAttribute("y", found.y);
    return svg.append(mark);
  };
  return { svg, at, show };
};

const tooltip = document.createElement("div");
tooltip.className = "tooltip";
tooltip.setAttribute("role", "tooltip");
tooltip.hidden = true;
document.body.append(tooltip);

for (const figure of document.querySelectorAll("figure.layout")) {
  const table = cellsOf(figure);
  const drawings = [...figure.querySelectorAll("svg[data-lines]")].map((svg) => drawingOf(svg, table));
  const point = (cell, event) => {
    for (const drawing of drawings) drawing.show(cell);
    tooltip.hidden = cell === undefined;
    if (cell === undefined) return;
    tooltip.textContent = wordsOf(table, cell);
    tooltip.style.left = `${Math.max(8, Math.min(event.clientX + 12, innerWidth - tooltip.offsetWidth - 8))}px`;
    tooltip.style.top = `${event.clientY + 18 + tooltip.offsetHeight > innerHeight ? event.clientY - tooltip.offsetHeight - 8 : event.clientY + 18}px`;
  };
  for (const drawing of drawings) {
    drawing.svg.addEventListener("pointermove", (event) => point(drawing.at(event), event));
    drawing.svg.addEventListener("pointerleave", (event) => point(undefined, event));
  }
}

// A link to a picture that is folded away opens it.
const unfold = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", unfold);
unfold();
