"use strict";

// Filters for documents: by benchmark, category, outcome, and by the rows that are right or wrong.
vicoPage.filters = (() => {
  const { element, number } = vicoPage;
  const OUTCOMES = {
    all: "All",
    lost: "Lost: lower score",
    gained: "Gained: higher score",
    wrong: "Both wrong",
    differ: "Answers differ",
    failed: "Failed",
  };
  const SORTS = { order: "Benchmark order", difference: "Largest difference first", tokens: "Most visual tokens first" };
  const [RIGHT, WRONG] = ["right", "wrong"];

  let starts = []; // number of each benchmark's first document
  let names = []; // names of all benchmarks' categories
  let failed = []; // by benchmark and row: a set of documents
  let baseline = 0;

  function start() {
    const { benchmarks, rows, baseline: title } = vicoPage.data.report;
    let total = 0;
    for (const benchmark of benchmarks) {
      starts.push(total);
      total += benchmark.ids.length;
    }
    failed = benchmarks.map((benchmark) => benchmark.failed.map((own) => own && new Set(own)));
    names = [...new Set(benchmarks.flatMap((benchmark) => benchmark.categories ?? []))];
    baseline = rows.findIndex((row) => row.title === title);
  }

  // A valid value of `fails`: right or wrong in all rows, or wrong in at least a number of rows; empty for any.
  function known(given) {
    const count = Number(given);
    const isCount = Number.isInteger(count) && count > 0 && count <= vicoPage.data.report.rows.length;
    return given === RIGHT || given === WRONG || (given && isCount) ? given : "";
  }

  // Data on a row's answer that is known without loading it.
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

  // Consistent with the marks: partly right is neither right nor wrong, and a failed answer is wrong.
  function isRight(spot, row) {
    return (spot.benchmark.scores[row]?.[spot.own] ?? null) >= 100;
  }

  function isWrong(spot, row) {
    const score = spot.benchmark.scores[row]?.[spot.own] ?? null;
    return (score !== null && score <= 0) || (failed[spot.at][row]?.has(spot.own) ?? false);
  }

  // Checks `fails` over the visible rows that were run.
  function passes(spot, fails, rows) {
    const present = rows.filter((row) => spot.benchmark.scores[row]);
    if (fails === RIGHT) return present.length > 0 && present.every((row) => isRight(spot, row));
    if (fails === WRONG) return present.length > 0 && present.every((row) => isWrong(spot, row));
    let wrong = 0;
    for (const row of present) wrong += isWrong(spot, row);
    return wrong >= Number(fails);
  }

  // The numbers of the documents that pass the filters, in order, and the number of documents by outcome.
  function select(state) {
    const { benchmarks, rows } = vicoPage.data.report;
    const counts = Object.fromEntries(Object.keys(OUTCOMES).map((name) => [name, 0]));
    const shown = rows.map((_, row) => row).filter((row) => !state.hidden.has(row));
    const found = [];
    benchmarks.forEach((benchmark, at) => {
      if (state.benchmark !== null && state.benchmark !== at) return;
      if (!benchmark.scores[state.row]) return;
      const category = state.category === null ? null : (benchmark.categories ?? []).indexOf(names[state.category]);
      if (category === -1) return;
      for (let own = 0; own < benchmark.ids.length; own += 1) {
        const spot = { benchmark, at, own };
        if (category !== null && benchmark.category[own] !== category) continue;
        if (state.right !== null && !isRight(spot, state.right)) continue;
        if (state.wrong !== null && !isWrong(spot, state.wrong)) continue;
        if (state.fails !== "" && !passes(spot, state.fails, shown)) continue;
        const [mine, base] = [sample(spot, state.row), sample(spot, baseline)];
        const has = outcomes(mine, base);
        for (const name in has) counts[name] += has[name];
        if (!has[state.outcome]) continue;
        const difference = mine.score !== null && base.score !== null ? Math.abs(mine.score - base.score) : -1;
        found.push({ which: starts[at] + own, difference, tokens: mine.tokens ?? -1 });
      }
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

  // The categories of the chosen benchmark, or all categories; false if there are none.
  function categoryChoice(state, go) {
    const own = state.benchmark === null ? names : (vicoPage.data.report.benchmarks[state.benchmark].categories ?? []);
    const numbers = names.map((_, place) => place).filter((place) => own.includes(names[place]) || place === state.category);
    const options = [["", "All"], ...numbers.map((place) => [place, names[place]])];
    return numbers.length > 0 && choice("category", "Category", options, state.category ?? "", (value) => go({ category: numberOf(value) }));
  }

  const numberOf = (value) => (value === "" ? null : Number(value));

  function failures(state) {
    const { rows } = vicoPage.data.report;
    const count = rows.length - state.hidden.size;
    const least = Array.from({ length: Math.max(count, Number(state.fails) || 0) }, (_, place) => place + 1);
    return [
      ["", "Any number"],
      [RIGHT, "None: right in all rows"],
      ...least.map((some) => [String(some), `Wrong in at least ${number(some)}`]),
      [WRONG, "Wrong in all rows"],
    ];
  }

  // The form; a change returns to the first page.
  function form(state, counts) {
    const { rows, benchmarks, baseline: title } = vicoPage.data.report;
    const go = (changes) => vicoPage.state.go({ page: 1, ...changes });
    const named = benchmarks.map((benchmark, at) => [at, benchmark.title]);
    const titles = rows.map((row, which) => [which, row.title]);
    const words = Object.entries(OUTCOMES).map(([name, outcome]) => [name, `${outcome} (${number(counts[name])})`]);
    const several = rows.length > 1;
    return element(
      "form",
      { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      choice("benchmark", "Benchmark", [["", "All"], ...named], state.benchmark ?? "", (value) => go({ benchmark: numberOf(value), category: null })),
      categoryChoice(state, go),
      choice("row", "Row", titles, state.row, (value) => go({ row: Number(value) })),
      choice("outcome", `Compared with ${vicoPage.shorten(title, 24)}`, words, state.outcome, (value) => go({ outcome: value })),
      several && choice("right", "Right in", [["", "Any"], ...titles], state.right ?? "", (value) => go({ right: numberOf(value) })),
      several && choice("wrong", "Wrong in", [["", "Any"], ...titles], state.wrong ?? "", (value) => go({ wrong: numberOf(value) })),
      several && choice("fails", "Rows that are wrong", failures(state), state.fails, (value) => go({ fails: value })),
      choice("sort", "Order", Object.entries(SORTS), state.sort, (value) => go({ sort: value })),
    );
  }

  return { start, select, form, choice, sample, known, categories: () => names, starts: () => starts, baseline: () => baseline };
})();
