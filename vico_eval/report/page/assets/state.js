"use strict";

// What is shown is in the address behind the #, so that a view can be linked and the back button works. Values are only
// looked up, never trusted: what the report doesn't have falls back to the default.
vicoPage.state = (() => {
  const OUTCOMES = ["all", "lost", "gained", "wrong", "differ", "failed"];
  const SORTS = ["order", "difference", "tokens"];
  const SIZES = [24, 48];
  const listeners = [];

  // A lone half of a surrogate pair can't stand in an address; both sides are compared without.
  const plain = (text) => new URLSearchParams({ text }).toString().slice("text=".length);

  function titles() {
    const report = vicoPage.data.report;
    return {
      rows: report.rows.map((row) => row.title),
      benchmarks: report.benchmarks.map((benchmark) => benchmark.title),
      columns: report.plots.map((plot) => plot.column),
    };
  }

  function place(list, wanted, otherwise) {
    const found = wanted === null ? -1 : list.findIndex((one) => plain(one) === plain(wanted));
    return found < 0 ? otherwise : found;
  }

  function defaultRow() {
    const { rows, baseline } = vicoPage.data.report;
    const others = rows.map((row, number) => number).filter((number) => rows[number].title !== baseline);
    return others.length ? others[others.length - 1] : 0;
  }

  let latest = { hash: null };

  function read() {
    if (latest.hash !== location.hash) latest = { hash: location.hash, state: parse() };
    return latest.state;
  }

  function parse() {
    const given = new URLSearchParams(location.hash.slice(1));
    const { rows, benchmarks, columns } = titles();
    const size = Number(given.get("size"));
    return {
      row: place(rows, given.get("row"), defaultRow()),
      benchmark: place(benchmarks, given.get("benchmark"), null),
      outcome: OUTCOMES.includes(given.get("outcome")) ? given.get("outcome") : "all",
      sort: SORTS.includes(given.get("sort")) ? given.get("sort") : "order",
      size: SIZES.includes(size) ? size : SIZES[0],
      page: Math.max(1, Math.floor(Number(given.get("page"))) || 1),
      column: place(columns, given.get("plot"), 0),
      document: find(given.get("document")),
    };
  }

  // A document's number over all benchmarks by its address, `benchmark/task/id`; null where there is none.
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

  // The address of the present view with some of it changed.
  function address(changes) {
    const state = { ...read(), ...changes };
    const { rows, benchmarks, columns } = titles();
    const given = new URLSearchParams();
    if (state.row !== defaultRow()) given.set("row", rows[state.row]);
    if (state.benchmark !== null) given.set("benchmark", benchmarks[state.benchmark]);
    if (state.outcome !== "all") given.set("outcome", state.outcome);
    if (state.sort !== "order") given.set("sort", state.sort);
    if (state.size !== SIZES[0]) given.set("size", state.size);
    if (state.page > 1) given.set("page", state.page);
    if (state.column > 0) given.set("plot", columns[state.column]);
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

  // Links to sections move the page; in the address they would take the place of the view.
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector(link.getAttribute("href")).scrollIntoView();
    });
  }

  return { read, go, address, sizes: SIZES, listen: (listener) => listeners.push(listener), notify };
})();
