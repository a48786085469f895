"use strict";

// The documents: filters, order, pages of cards, and the one that is open. Only what is on the page is in the DOM.
vicoPage.samples = (() => {
  const { element, number } = vicoPage;
  const OUTCOMES = {
    all: "All",
    lost: "Lost: scores less",
    gained: "Gained: scores more",
    wrong: "Both wrong",
    differ: "Answers differ",
    failed: "Failed",
  };
  const SORTS = { order: "As in the benchmark", difference: "Largest difference first", tokens: "Most visual tokens first" };

  let starts = []; // the number of each benchmark's first document
  let total = 0;
  let baseline = 0;
  let failed = []; // by benchmark and row: a set of documents
  let body;
  let opened = null; // the address of the document that is open
  let turn = 0; // of what is shown last; an earlier one that is still loading is dropped

  function place(which) {
    const { benchmarks } = vicoPage.data.report;
    let found = starts.length - 1;
    while (starts[found] > which) found -= 1;
    const benchmark = benchmarks[found];
    const own = which - starts[found];
    let first = 0;
    const [task] = benchmark.tasks.find(([, count]) => own < (first += count));
    return { which, own, benchmark, at: found, id: benchmark.ids[own], address: `${benchmark.title}/${task}/${benchmark.ids[own]}` };
  }

  // What is known of a row's answer without loading it.
  function sample({ benchmark, at, own }, row) {
    return {
      score: benchmark.scores[row]?.[own] ?? null,
      tokens: benchmark.tokens[row]?.[own] ?? null,
      differs: benchmark.differs[row]?.[own] === "1",
      isFailed: failed[at][row]?.has(own) ?? false,
    };
  }

  function outcomes(own, base) {
    const isScored = own.score !== null && base.score !== null;
    return {
      all: true,
      lost: isScored && own.score < base.score,
      gained: isScored && own.score > base.score,
      wrong: isScored && own.score === 0 && base.score === 0,
      differ: own.differs,
      failed: own.isFailed,
    };
  }

  // The numbers of the documents that pass the filters, in order, and how many have each outcome.
  function select(state) {
    const { benchmarks } = vicoPage.data.report;
    const counts = Object.fromEntries(Object.keys(OUTCOMES).map((name) => [name, 0]));
    const found = [];
    benchmarks.forEach((benchmark, at) => {
      if (state.benchmark !== null && state.benchmark !== at) return;
      if (!benchmark.scores[state.row]) return;
      benchmark.ids.forEach((_, own) => {
        const [mine, base] = [sample({ benchmark, at, own }, state.row), sample({ benchmark, at, own }, baseline)];
        const has = outcomes(mine, base);
        for (const name in has) counts[name] += has[name];
        if (!has[state.outcome]) return;
        const difference = mine.score !== null && base.score !== null ? Math.abs(mine.score - base.score) : -1;
        found.push({ which: starts[at] + own, difference, tokens: mine.tokens ?? -1 });
      });
    });
    if (state.sort !== "order") found.sort((one, other) => other[state.sort] - one[state.sort] || one.which - other.which);
    return { found: found.map(({ which }) => which), counts };
  }

  function choice(name, label, options, value, change) {
    const select = element("select", { id: `filter-${name}`, "data-focus": name }, options.map(([key, words]) => element("option", { value: key }, words)));
    select.value = value;
    select.addEventListener("change", () => change(select.value));
    return element("label", {}, label, select);
  }

  function filters(state, counts) {
    const { rows, benchmarks } = vicoPage.data.report;
    const go = (changes) => vicoPage.state.go({ page: 1, ...changes });
    const named = benchmarks.map((benchmark, at) => [at, benchmark.title]);
    const outcomeWords = Object.entries(OUTCOMES).map(([name, words]) => [name, `${words} (${number(counts[name])})`]);
    return element(
      "form",
      { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      choice("benchmark", "Benchmark", [["", "All"], ...named], state.benchmark ?? "", (value) => go({ benchmark: value === "" ? null : Number(value) })),
      choice("row", "Row", rows.map((row, which) => [which, row.title]), state.row, (value) => go({ row: Number(value) })),
      choice("outcome", `Against ${vicoPage.shorten(vicoPage.data.report.baseline, 24)}`, outcomeWords, state.outcome, (value) => go({ outcome: value })),
      choice("sort", "Order", Object.entries(SORTS), state.sort, (value) => go({ sort: value })),
    );
  }

  function pager(state, page, pages, count) {
    const step = (words, target, label) =>
      element("button", { type: "button", class: "button", "aria-label": label, disabled: target < 1 || target > pages, onclick: () => turnTo(target) }, words);
    const turnTo = (target) => {
      vicoPage.state.go({ page: target });
      document.getElementById("samples").scrollIntoView();
    };
    const sizes = choice("size", "A page has", vicoPage.state.sizes.map((size) => [size, String(size)]), state.size,
      (value) => vicoPage.state.go({ size: Number(value), page: 1 }));
    return element("div", { class: "pager" },
      step("«", page === 1 ? 0 : 1, "First page"), step("←", page - 1, "Previous page"),
      element("span", { "aria-live": "polite" }, `Page ${number(page)} of ${number(pages)}`),
      step("→", page + 1, "Next page"), step("»", page === pages ? 0 : pages, "Last page"),
      element("span", { class: "key" }, `${number(count)} ${count === 1 ? "document" : "documents"}`), sizes);
  }

  function said(row, which, own, kind) {
    const { rows } = vicoPage.data.report;
    const words = own === null ? "not run" : own.failure !== undefined ? "failed" : vicoPage.shorten(own.answer, 90) || "(empty)";
    return element("span", { class: "said" }, vicoPage.markers.icon(rows[row]),
      vicoPage.document.mark(which.score, which.isFailed), element("span", { class: "line", title: `${rows[row].title}, ${kind}` }, words));
  }

  function card(spot, shown, state) {
    const picture = vicoPage.pictures.first(shown, shown.rows[state.row]);
    const frame = element("span", { class: "frame" }, picture ?? element("span", { class: "faint" }, "no picture"));
    const own = sample(spot, state.row);
    const made = element(
      "a",
      { class: "card", href: vicoPage.state.address({ document: spot.which }) },
      frame,
      element("span", { class: "name" }, `${spot.benchmark.title} ${spot.id}`, element("span", { class: "faint" }, own.tokens === null ? "" : `${number(own.tokens)} tokens`)),
      element("span", { class: "asked" }, vicoPage.shorten(shown.question, 120) || "(no question kept)"),
      said(baseline, sample(spot, baseline), shown.rows[baseline] ?? null, "the baseline"),
      state.row !== baseline && said(state.row, own, shown.rows[state.row] ?? null, "the chosen row"),
    );
    made.dataset.document = spot.address;
    return made;
  }

  async function show(state) {
    const now = (turn += 1);
    const { found, counts } = select(state);
    try {
      if (state.document !== null) await showDocument(state, found, now);
      else await showCards(state, found, counts, now);
    } catch (error) {
      if (now === turn) body.replaceChildren(element("p", { class: "message" }, error.message));
    }
  }

  async function showCards(state, found, counts, now) {
    const pages = Math.max(1, Math.ceil(found.length / state.size));
    const page = Math.min(state.page, pages);
    const spots = found.slice((page - 1) * state.size, page * state.size).map(place);
    const shown = await Promise.all(spots.map((spot) => vicoPage.chunks.document(spot.which)));
    if (now !== turn) return;
    const { rows } = vicoPage.data.report;
    const several = [state.row, baseline].map((row) => rows[row]).filter((row) => row.runs > 1);
    const remarks = [...new Set(several)].map((row) => `${row.title} was run ${row.runs} times; its first run is shown.`);
    const cards = spots.map((spot, number) => card(spot, shown[number], state));
    const grid = cards.length
      ? element("div", { class: "cards" }, cards)
      : element("p", { class: "message" }, "No document passes these filters.");
    replace(filters(state, counts), ...remarks.map((words) => element("p", { class: "key" }, words)), grid, pager(state, page, pages, found.length));
    if (opened !== null) [...body.querySelectorAll(".card")].find((one) => one.dataset.document === opened)?.focus();
    opened = null;
  }

  async function showDocument(state, found, now) {
    const spot = place(state.document);
    const shown = await vicoPage.chunks.document(spot.which);
    if (now !== turn) return;
    const at = found.indexOf(spot.which);
    const words = at < 0 ? "not in the selection" : `${number(at + 1)} of ${number(found.length)} in the selection`;
    const around = { words, before: found[at - 1] ?? null, after: at < 0 ? (found[0] ?? null) : (found[at + 1] ?? null) };
    const view = vicoPage.document.view(spot, shown, state, around);
    replace(view);
    if (opened === null) {
      document.getElementById("samples").scrollIntoView();
      view.querySelector("h3").focus({ preventScroll: true });
    }
    opened = spot.address;
  }

  // The same control keeps the focus where what is around it is made anew.
  function replace(...parts) {
    const focused = body.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    body.replaceChildren(...parts);
    if (focused !== undefined) body.querySelector(`[data-focus="${focused}"]`)?.focus({ preventScroll: true });
  }

  function keys(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("input, select, textarea, .scores, #plot-area")) return;
    const view = body.querySelector(".document");
    if (!view) return;
    const name = { ArrowLeft: "ArrowLeft", ArrowRight: "ArrowRight", Escape: "Escape" }[event.key];
    const link = name && view.querySelector(`[aria-keyshortcuts="${name}"]`);
    if (!link) return;
    event.preventDefault();
    link.click();
  }

  function start() {
    const { benchmarks, rows, baseline: title, hasPictures } = vicoPage.data.report;
    body = document.getElementById("samples-body");
    for (const benchmark of benchmarks) {
      starts.push(total);
      total += benchmark.ids.length;
    }
    failed = benchmarks.map((benchmark) => benchmark.failed.map((own) => own && new Set(own)));
    baseline = rows.findIndex((row) => row.title === title);
    document.getElementById("samples-note").textContent = hasPictures ? "" : "These runs kept no pictures.";
    document.addEventListener("keydown", keys);
    vicoPage.state.listen(show);
  }

  return { start, place, sample };
})();
