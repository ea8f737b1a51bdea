"use strict";
// A heading sorts each part of its table by its column; what has no value stays at the end.
function sortBy(heading) {
  const table = heading.closest("table");
  const column = heading.cellIndex;
  const rising = heading.getAttribute("aria-sort") === "descending" || column === 0
    && heading.getAttribute("aria-sort") !== "ascending";
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
  for (const part of table.tBodies) {
    const rows = [...part.rows];
    const value = (row) => row.cells[column].dataset.v;
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const numbers = x !== "" && y !== "" && isFinite(x) && isFinite(y);
      const order = numbers ? Number(x) - Number(y) : x.localeCompare(y);
      return rising ? order : -order;
    });
    part.append(...rows);
  }
}
for (const heading of document.querySelectorAll("thead th")) {
  heading.querySelector("button").addEventListener("click", () => sortBy(heading));
}
// A name of a legend brings its line out; once more, and all are shown again.
for (const key of document.querySelectorAll(".key")) {
  key.addEventListener("click", () => {
    const figure = key.closest("figure");
    const on = key.getAttribute("aria-pressed") !== "true";
    for (const other of figure.querySelectorAll(".key")) other.setAttribute("aria-pressed", "false");
    key.setAttribute("aria-pressed", String(on));
    figure.classList.toggle("picked", on);
    for (const series of figure.querySelectorAll(".series")) {
      series.classList.toggle("on", on && series.dataset.name === key.dataset.name);
    }
  });
}
