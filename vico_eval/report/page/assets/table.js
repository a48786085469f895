"use strict";

// The score table: sorting by any column, selecting a row, and choosing columns and rows.
vicoPage.table = (() => {
  const { element } = vicoPage;
  let table;
  let boxes;

  function start() {
    table = document.querySelector("table.scores");
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => sort(column)));
    heads[0].setAttribute("aria-sort", "ascending");
    for (const line of table.tBodies[0].rows) {
      const row = vicoPage.data.report.rows[line.dataset.row];
      line.querySelector(".marker").replaceWith(vicoPage.markers.icon(row));
      line.addEventListener("click", () => vicoPage.state.go({ row: Number(line.dataset.row), page: 1 }));
    }
    boxes = element("div", { class: "choice" });
    const chooser = element("details", { id: "choose-table", class: "choose" }, element("summary", {}, "Columns and rows"), boxes);
    document.getElementById("table-actions").append(chooser, ...vicoPage.downloads.buttons(table));
    // When open, it covers the content below, so a click elsewhere closes it.
    document.addEventListener("click", (event) => {
      if (!event.composedPath().includes(chooser)) chooser.open = false;
    });
    chooser.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !chooser.open) return;
      chooser.open = false;
      chooser.querySelector("summary").focus();
    });
    vicoPage.state.listen(show);
  }

  function show(state) {
    for (const line of table.tBodies[0].rows) {
      const row = Number(line.dataset.row);
      line.classList.toggle("picked", row === state.row);
      line.hidden = state.hidden.has(row);
    }
    for (const line of table.rows) {
      for (let column = 1; column < line.cells.length; column += 1) line.cells[column].hidden = !state.columns.has(column - 1);
    }
    choices(state);
  }

  function choices(state) {
    const focused = boxes.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    const { columns } = vicoPage.data.table;
    const go = (changes) => vicoPage.state.go(changes, { replace: true });
    const groups = [...new Set(columns.map((column) => column.group))].map((name) => {
      const own = columns.flatMap((column, number) => (column.group === name ? [[number, column.title]] : []));
      return vicoPage.choose.group(name, own, state.columns, (next) => go({ columns: next }));
    });
    const rows = vicoPage.data.report.rows.map((row, number) => [number, row.title]);
    boxes.replaceChildren(...groups, vicoPage.choose.except("Rows", rows, state.hidden, (next) => go({ hidden: next, page: 1 })));
    if (focused !== undefined) [...boxes.querySelectorAll("input")].find((one) => one.dataset.focus === focused)?.focus();
  }

  // The first click on numbers puts the highest on top, the next one the lowest; unknown values stay at the bottom.
  function sort(column) {
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
  }

  return { start };
})();
