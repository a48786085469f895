"use strict";

// The view is stored in the address after the #, so that it can be linked and the back button works. Values are only
// looked up, never trusted: unknown ones fall back to the default.
vicoPage.state = (() => {
  const OUTCOMES = ["all", "lost", "gained", "wrong", "differ", "failed"];
  const SORTS = ["order", "difference", "tokens"];
  const SIZES = [24, 48];
  const LONGEST = 200; // characters of a search
  const listeners = [];

  // An address can't contain a lone surrogate, so both sides are normalised before comparing.
  const plain = (text) => new URLSearchParams({ text }).toString().slice("text=".length);

  function titles() {
    const { report, table } = vicoPage.data;
    return {
      rows: report.rows.map((row) => row.title),
      benchmarks: report.benchmarks.map((benchmark) => benchmark.title),
      plots: report.plots.map((plot) => plot.column),
      axes: report.axes.map((axis) => axis.title),
      columns: table.columns.map((column) => column.title),
      categories: vicoPage.filters.categories(),
      answers: vicoPage.document.columns,
    };
  }

  function place(list, wanted, otherwise) {
    const found = wanted === null ? -1 : list.findIndex((one) => plain(one) === plain(wanted));
    return found < 0 ? otherwise : found;
  }

  const places = (list, wanted) => new Set(wanted.map((one) => place(list, one, -1)).filter((found) => found >= 0));

  function defaultRow() {
    const { rows, baseline } = vicoPage.data.report;
    const others = rows.map((row, number) => number).filter((number) => rows[number].title !== baseline);
    return others.length ? others[others.length - 1] : 0;
  }

  // Columns of the table whose visibility differs from the default.
  function changed(columns) {
    const isChanged = (column, number) => columns.has(number) !== column.isShown;
    return vicoPage.data.table.columns.filter(isChanged).map((column) => column.title);
  }

  let latest = { hash: null };

  function read() {
    if (latest.hash !== location.hash) latest = { hash: location.hash, state: parse() };
    return latest.state;
  }

  function parse() {
    const given = new URLSearchParams(location.hash.slice(1));
    const { rows, benchmarks, plots, axes, columns, categories, answers } = titles();
    const size = Number(given.get("size"));
    const switched = places(columns, given.getAll("column"));
    const isShown = (column, number) => column.isShown !== switched.has(number);
    return {
      row: place(rows, given.get("row"), defaultRow()),
      benchmark: place(benchmarks, given.get("benchmark"), null),
      category: place(categories, given.get("category"), null),
      outcome: OUTCOMES.includes(given.get("outcome")) ? given.get("outcome") : "all",
      right: place(rows, given.get("right"), null),
      wrong: place(rows, given.get("wrong"), null),
      fails: vicoPage.filters.known(given.get("fails")),
      search: (given.get("search") ?? "").slice(0, LONGEST),
      sort: SORTS.includes(given.get("sort")) ? given.get("sort") : "order",
      size: SIZES.includes(size) ? size : SIZES[0],
      page: Math.max(1, Math.floor(Number(given.get("page"))) || 1),
      column: place(plots, given.get("plot"), 0),
      axis: place(axes, given.get("over"), 0),
      columns: new Set(vicoPage.data.table.columns.flatMap((column, number) => (isShown(column, number) ? [number] : []))),
      hidden: places(rows, given.getAll("without")),
      answers: places(answers, given.getAll("hide")),
      document: find(given.get("document")),
    };
  }

  // A document's number over all benchmarks, from its address `benchmark/task/id`; null if there is none.
  function find(address) {
    if (address === null) return null;
    let start = 0;
    for (const benchmark of vicoPage.data.report.benchmarks) {
      let first = 0;
      for (const [task, count] of benchmark.tasks) {
        const prefix = `${benchmark.title}/${task}/`;
        if (plain(address).startsWith(plain(prefix))) {
          for (let place = first; place < first + count; place += 1) {
            if (plain(prefix + benchmark.ids[place]) === plain(address)) return start + place;
          }
        }
        first += count;
      }
      start += benchmark.ids.length;
    }
    return null;
  }

  // The address of the current view with some changes.
  function address(changes) {
    const state = { ...read(), ...changes };
    const { rows, benchmarks, plots, axes, categories, answers } = titles();
    const given = new URLSearchParams();
    if (state.row !== defaultRow()) given.set("row", rows[state.row]);
    if (state.benchmark !== null) given.set("benchmark", benchmarks[state.benchmark]);
    if (state.category !== null) given.set("category", categories[state.category]);
    if (state.outcome !== "all") given.set("outcome", state.outcome);
    if (state.right !== null) given.set("right", rows[state.right]);
    if (state.wrong !== null) given.set("wrong", rows[state.wrong]);
    if (state.fails !== "") given.set("fails", state.fails);
    if (state.search !== "") given.set("search", state.search);
    if (state.sort !== "order") given.set("sort", state.sort);
    if (state.size !== SIZES[0]) given.set("size", state.size);
    if (state.page > 1) given.set("page", state.page);
    if (state.column > 0) given.set("plot", plots[state.column]);
    if (state.axis > 0) given.set("over", axes[state.axis]);
    for (const title of changed(state.columns)) given.append("column", title);
    for (const row of state.hidden) given.append("without", rows[row]);
    for (const column of state.answers) given.append("hide", answers[column]);
    if (state.document !== null) given.set("document", vicoPage.samples.place(state.document).address);
    return `#${given}`;
  }

  function go(changes, { replace = false } = {}) {
    const target = address(changes);
    if (replace) history.replaceState(null, "", target);
    else history.pushState(null, "", target);
    notify();
  }

  function notify() {
    const state = read();
    for (const listener of listeners) listener(state);
  }

  addEventListener("hashchange", notify);

  // Links to sections only scroll the page; in the address they would replace the view.
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector(link.getAttribute("href")).scrollIntoView();
    });
  }

  return { read, go, address, sizes: SIZES, longest: LONGEST, listen: (listener) => listeners.push(listener), notify };
})();
