"use strict";

// The documents: search, filters, pages of cards, and the open document. Only the current page is in the DOM.
vicoPage.samples = (() => {
  const { element, number } = vicoPage;
  const PAUSE = 300; // ms without a key press before a search starts

  let form; // parts of the section, which are redrawn independently
  let results;
  let bar;
  let field;
  let opened = null; // address of the open document
  let drawn = ""; // the visible cards, which stay while a search continues
  let turn = 0; // number of the latest view; an earlier one that is still loading is dropped

  function place(which) {
    const { benchmarks } = vicoPage.data.report;
    const starts = vicoPage.filters.starts();
    let found = starts.length - 1;
    while (starts[found] > which) found -= 1;
    const benchmark = benchmarks[found];
    const own = which - starts[found];
    let first = 0;
    const [task] = benchmark.tasks.find(([, count]) => own < (first += count));
    return { which, own, benchmark, at: found, id: benchmark.ids[own], address: `${benchmark.title}/${task}/${benchmark.ids[own]}` };
  }

  function pager(state, page, pages, count) {
    const turnTo = (target) => {
      vicoPage.state.go({ page: target });
      document.getElementById("samples").scrollIntoView();
    };
    const step = (words, target, label) =>
      element("button", { type: "button", class: "button", "aria-label": label, "data-focus": label, disabled: target < 1 || target > pages, onclick: () => turnTo(target) }, words);
    const sizes = vicoPage.filters.choice("size", "Per page", vicoPage.state.sizes.map((size) => [size, String(size)]), state.size,
      (value) => vicoPage.state.go({ size: Number(value), page: 1 }));
    return element("div", { class: "pager" },
      step("«", page === 1 ? 0 : 1, "First page"), step("←", page - 1, "Previous page"),
      element("span", { "aria-live": "polite" }, `Page ${number(page)} of ${number(pages)}`),
      step("→", page + 1, "Next page"), step("»", page === pages ? 0 : pages, "Last page"),
      element("span", { class: "key" }, `${number(count)} ${count === 1 ? "document" : "documents"}`), sizes);
  }

  // The rows whose answers are on a card.
  const compared = (state) => [...new Set([vicoPage.filters.baseline(), state.row, state.right, state.wrong])].filter((row) => row !== null);

  function said(row, which, own) {
    const { rows } = vicoPage.data.report;
    const words = own === null ? "not run" : own.failure !== undefined ? "failed" : vicoPage.shorten(own.answer, 90) || "(empty)";
    return element("span", { class: "said" }, vicoPage.markers.icon(rows[row]), element("span", { class: "unseen" }, rows[row].title),
      vicoPage.document.mark(which.score, which.isFailed), element("span", { class: "line", title: rows[row].title }, words));
  }

  // The excerpt of a card that matches the search.
  function snippet(spot, shown, state) {
    const hit = state.search.trim() && vicoPage.search.find(state.search.trim(), spot, shown);
    return hit && element("span", { class: "hit" }, element("b", {}, `${hit.where}: `), hit.before, element("mark", {}, hit.words), hit.after);
  }

  function card(spot, shown, state) {
    const picture = vicoPage.pictures.first(shown, shown.rows[state.row]);
    const frame = element("span", { class: "frame" }, picture ?? element("span", { class: "faint" }, "no image"));
    const own = vicoPage.filters.sample(spot, state.row);
    const made = element(
      "a",
      { class: "card", href: vicoPage.state.address({ document: spot.which }), "data-focus": spot.address },
      frame,
      element("span", { class: "name" }, `${spot.benchmark.title} ${spot.id}`, element("span", { class: "faint" }, own.tokens === null ? "" : `${number(own.tokens)} tokens`)),
      element("span", { class: "asked" }, vicoPage.shorten(shown.question, 120) || "(no prompt kept)"),
      compared(state).map((row) => said(row, vicoPage.filters.sample(spot, row), shown.rows[row] ?? null)),
      snippet(spot, shown, state),
    );
    made.dataset.document = spot.address;
    return made;
  }

  async function show(state) {
    const now = (turn += 1);
    const { found, counts } = vicoPage.filters.select(state);
    const isOpen = state.document !== null;
    form.hidden = bar.hidden = isOpen;
    if (!isOpen) replace(form, vicoPage.filters.form(state, counts));
    if (document.activeElement !== field) field.value = state.search;
    const words = state.search.trim();
    if (!words) vicoPage.search.end();
    else vicoPage.search.start(words, found, (error) => now === turn && showFound(state, found, now, { isMore: true, error }));
    await showFound(state, found, now);
  }

  // What the search has found until now, or all where nothing is looked for.
  async function showFound(state, candidates, now, { isMore = false, error = null } = {}) {
    const search = state.search.trim() ? vicoPage.search.status() : null;
    const found = search ? candidates.filter(search.has) : candidates;
    tell(search, found, candidates);
    try {
      if (error) throw error;
      if (state.document === null) await showCards(state, found, now, search);
      else if (isMore && opened !== null) replace(results.querySelector(".bar"), ...vicoPage.document.bar(place(state.document), around(state, found)).childNodes);
      else await showDocument(state, found, now);
    } catch (problem) {
      if (now === turn) results.replaceChildren(element("p", { class: "message" }, problem.message));
    }
  }

  function tell(search, found, candidates) {
    const [progress, live, stop] = ["progress", "[role=status]", "button"].map((name) => bar.querySelector(name));
    progress.hidden = stop.hidden = !search || search.isDone;
    if (!search) {
      live.textContent = bar.querySelector(".count").textContent = "";
      return;
    }
    progress.value = search.share;
    stop.textContent = search.isStopped ? "Continue" : "Stop";
    const looked = search.isDone ? candidates.length : candidates.filter(search.looked).length;
    const words = `${number(found.length)} found in ${number(looked)} of ${number(candidates.length)} documents`;
    // Announced to screen readers only at the end.
    live.textContent = search.isDone || search.isStopped ? `${words}${search.isDone ? "" : ", stopped"}` : "";
    bar.querySelector(".count").textContent = live.textContent ? "" : words;
  }

  async function showCards(state, found, now, search) {
    const pages = Math.max(1, Math.ceil(found.length / state.size));
    const page = Math.min(state.page, pages);
    const spots = found.slice((page - 1) * state.size, page * state.size).map(place);
    const shown = await Promise.all(spots.map((spot) => vicoPage.chunks.document(spot.which)));
    if (now !== turn) return;
    const key = JSON.stringify([now, found.length, search?.isDone, spots.map((spot) => spot.which)]);
    if (key === drawn) return;
    drawn = key;
    const { rows } = vicoPage.data.report;
    const several = compared(state).map((row) => rows[row]).filter((row) => row.runs > 1);
    const remarks = several.map((row) => `${row.title} was run ${row.runs} times; its first run is shown.`);
    const cards = spots.map((spot, number) => card(spot, shown[number], state));
    const none = search && !search.isDone ? "Nothing found yet." : "No document passes these filters.";
    const grid = cards.length ? element("div", { class: "cards" }, cards) : element("p", { class: "message" }, none);
    replace(results, vicoPage.names.list(compared(state)), ...remarks.map((words) => element("p", { class: "key" }, words)), grid, pager(state, page, pages, found.length));
    if (opened !== null) [...results.querySelectorAll(".card")].find((one) => one.dataset.document === opened)?.focus();
    opened = null;
  }

  // The documents before and after the open one in the selection.
  function around(state, found) {
    const at = found.indexOf(state.document);
    const words = at < 0 ? "not in the selection" : `${number(at + 1)} of ${number(found.length)} in the selection`;
    return { words, before: found[at - 1] ?? null, after: at < 0 ? (found[0] ?? null) : (found[at + 1] ?? null) };
  }

  async function showDocument(state, found, now) {
    const spot = place(state.document);
    const shown = await vicoPage.chunks.document(spot.which);
    if (now !== turn) return;
    const isChoosing = results.querySelector(".choose")?.open ?? false;
    const view = vicoPage.document.view(spot, shown, state, around(state, found), isChoosing);
    replace(results, view);
    if (opened === null) {
      document.getElementById("samples").scrollIntoView();
      view.querySelector("h3").focus({ preventScroll: true });
    }
    opened = spot.address;
  }

  // Keep the focus on the same control after a redraw; without it, focus the document's name.
  function replace(part, ...children) {
    const focused = part.contains(document.activeElement) ? (document.activeElement.dataset.focus ?? null) : undefined;
    part.replaceChildren(...children);
    if (focused === undefined) return;
    const same = [...part.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused && !one.disabled);
    (same ?? part.querySelector("h3"))?.focus({ preventScroll: true });
  }

  function keys(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("input, select, textarea, .scores, #plot-area, .choose")) return;
    const view = results.querySelector(".document");
    if (!view) return;
    const name = { ArrowLeft: "ArrowLeft", ArrowRight: "ArrowRight", Escape: "Escape" }[event.key];
    const link = name && view.querySelector(`[aria-keyshortcuts="${name}"]`);
    if (!link) return;
    event.preventDefault();
    link.click();
  }

  function searchBar() {
    let waiting;
    const look = () => {
      clearTimeout(waiting);
      if (field.value !== vicoPage.state.read().search) vicoPage.state.go({ search: field.value, page: 1 }, { replace: true });
    };
    field = element("input", { type: "search", id: "search", maxlength: vicoPage.state.longest, placeholder: "Prompt, target, answer or id", autocomplete: "off", spellcheck: "false" });
    field.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(look, PAUSE);
    });
    field.addEventListener("change", look);
    const stop = element("button", { type: "button", class: "button", hidden: true }, "Stop");
    stop.addEventListener("click", () => {
      vicoPage.search.stop(!vicoPage.search.status().isStopped);
      vicoPage.state.notify();
    });
    return element("div", { class: "search", role: "search" }, element("label", {}, "Search", field),
      element("progress", { max: 1, value: 0, "aria-label": "Documents searched", hidden: true }), stop,
      element("span", { class: "key count" }), element("span", { class: "key", role: "status" }));
  }

  function start() {
    const { hasPictures } = vicoPage.data.report;
    [form, results] = [element("div"), element("div", { id: "samples-results" })];
    bar = searchBar();
    document.getElementById("samples-body").append(bar, form, results);
    document.getElementById("samples-note").textContent = hasPictures ? "" : "These runs kept no image previews.";
    document.addEventListener("keydown", keys);
    vicoPage.state.listen(show);
  }

  return { start, place };
})();
