"use strict";

// The table of scores: sorting by any column, and picking a row.
vicoPage.table = {
  start() {
    const table = document.querySelector("table.scores");
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.firstElementChild.addEventListener("click", () => vicoPage.table.sort(table, column));
    });
    heads[0].setAttribute("aria-sort", "ascending");
    for (const line of table.tBodies[0].rows) {
      const row = vicoPage.data.report.rows[line.dataset.row];
      line.querySelector(".marker").replaceWith(vicoPage.markers.icon(row));
      line.addEventListener("click", () => vicoPage.state.go({ row: Number(line.dataset.row), page: 1 }));
    }
    const loyalty = document.getElementById("show-loyalty");
    const show = () => table.classList.toggle("with-loyalty", loyalty.checked);
    loyalty.addEventListener("change", show);
    show();
    vicoPage.state.listen((state) => {
      for (const line of table.tBodies[0].rows) {
        line.classList.toggle("picked", Number(line.dataset.row) === state.row);
      }
    });
  },

  // The first click on numbers puts the highest on top, the next one the lowest; what is unknown stays below.
  sort(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const lines = [...table.tBodies[0].rows];
    const values = new Map(lines.map((line) => [line, line.cells[column].dataset.sort ?? null]));
    const isNumeric = lines.every((line) => values.get(line) === null || Number.isFinite(Number(values.get(line))));
    const before = heads[column].getAttribute("aria-sort");
    const first = column > 0 && isNumeric ? "descending" : "ascending";
    const direction = before === null ? first : before === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    const compare = (one, other) => (isNumeric ? Number(one) - Number(other) : one.localeCompare(other, "en"));
    lines.sort((one, other) => {
      const [a, b] = [values.get(one), values.get(other)];
      const order = a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b);
      return order || one.dataset.row - other.dataset.row;
    });
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", direction);
    table.tBodies[0].append(...lines);
  },
};
