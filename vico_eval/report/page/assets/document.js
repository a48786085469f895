"use strict";

// One document: its images, question and target, and each row's answer.
vicoPage.document = (() => {
  const { element, number } = vicoPage;
  const LONGEST = 600; // characters of a text that are shown at first

  // Literal text; a long one is shortened, with a button for the rest.
  function text(value, name) {
    const made = element("div", { class: "text" }, element("span", {}, vicoPage.shorten(value, LONGEST)));
    if (!value.trim()) made.replaceChildren(element("span", { class: "faint" }, value === "" ? "(empty)" : "(blank)"));
    else if (made.textContent !== value) {
      const button = element("button", { type: "button", class: "link" }, `Show all ${number(value.length)} characters`);
      button.setAttribute("aria-label", `${button.textContent} of the ${name}`);
      button.addEventListener("click", () => made.replaceChildren(element("span", {}, value)));
      made.append(button);
    }
    return made;
  }

  function mark(score, isFailed) {
    const [symbol, name, words] = isFailed
      ? ["!", "failed", "failed"]
      : score === null
        ? ["·", "unknown", "no score by document"]
        : score >= 100
          ? ["✓", "right", "right"]
          : score <= 0
            ? ["✗", "wrong", "wrong"]
            : ["◐", "partly", "partly right"];
    return element("span", { class: `mark ${name}`, role: "img", "aria-label": words, title: words }, symbol);
  }

  // Columns of the answers after method and answer: title, the name on a phone, and the text of a cell.
  const COLUMNS = [
    ["Score", "score", (sample) => number(sample.score, Number.isInteger(sample.score) ? 0 : 1)],
    ["Visual tokens", "visual tokens", (sample) => number(sample.tokens)],
    ["Compressed tiles", "compressed", (_, own) => (own.tiles === undefined ? "–" : `${own.compressed} of ${own.tiles}`)],
    ["Seconds", "s, share of its batch", (_, own) => (own.seconds === undefined ? "–" : String(own.seconds))],
  ];

  // Further texts of an answer besides the scored one, which open on a click.
  function more(name, value) {
    return value !== undefined && element("details", {}, element("summary", {}, name), text(value, name.toLowerCase()));
  }

  function answer(place, own, which, state, columns) {
    const row = vicoPage.data.report.rows[which];
    const sample = vicoPage.filters.sample(place, which);
    const title = [vicoPage.markers.icon(row), element("span", {}, row.title)];
    const said = own.failure !== undefined ? element("div", { class: "text failure" }, `Failed: ${own.failure}`) : text(own.answer, "answer");
    const kept = element("div", { class: "reply" }, said, more("Raw reply", own.reply), more("Its own prompt", own.question));
    const isPicked = which === state.row;
    const pick = element("button", { type: "button", class: "pick", "aria-pressed": String(isPicked), "data-focus": `row-${which}` }, title);
    const line = element(
      "tr",
      { class: isPicked ? "picked" : null },
      element("th", { scope: "row" }, pick, row.runs > 1 && element("small", {}, `the first of ${row.runs} runs`)),
      element("td", { class: "said" }, element("div", {}, mark(sample.score, sample.isFailed), kept, sample.differs && element("small", { class: "tag" }, "differs"))),
      columns.map(([, name, cell]) => element("td", { class: "number", "data-name": name }, cell(sample, own))),
    );
    line.addEventListener("click", (event) => {
      if (event.target.closest(".link, details") || String(getSelection())) return;
      vicoPage.state.go({ row: which }, { replace: true });
    });
    return line;
  }

  function answers(place, shown, state) {
    const { rows, baseline } = vicoPage.data.report;
    const columns = COLUMNS.filter((_, column) => !state.answers.has(column));
    const lines = rows.map((_, which) => shown.rows[which] && !state.hidden.has(which) && answer(place, shown.rows[which], which, state, columns));
    const heads = ["Method", "Answer", ...columns.map(([title]) => title)];
    const head = element("tr", {}, heads.map((name, column) => element("th", { scope: "col", class: column > 1 ? "number" : null }, name)));
    const words = `Answers of ${state.hidden.size ? "the visible rows" : "all rows"}. Click an answer to show its tiles. “differs” marks answers that differ from ${baseline}'s. Seconds are for encoding and the row's own work; a batch's time is divided evenly.`;
    const caption = element("caption", {}, words);
    return element("table", { class: "answers" }, caption, element("thead", {}, head), element("tbody", {}, lines.filter((line) => line)));
  }

  function choices(state, isOpen) {
    const go = (changes) => vicoPage.state.go(changes, { replace: true });
    const columns = COLUMNS.map(([title], column) => [column, title]);
    const rows = vicoPage.data.report.rows.map((row, which) => [which, row.title]);
    return element("details", { class: "choose inline", open: isOpen }, element("summary", { "data-focus": "choose" }, "Columns and rows"),
      element("div", { class: "choice" },
        vicoPage.choose.except("Columns", columns, state.answers, (next) => go({ answers: next })),
        vicoPage.choose.except("Rows", rows, state.hidden, (next) => go({ hidden: next }))));
  }

  function tiling(place, shown, state) {
    const { rows, hasPictures } = vicoPage.data.report;
    const [row, own] = [rows[state.row], shown.rows[state.row]];
    const pictures = vicoPage.pictures.show(shown, own);
    const parts = [];
    if (pictures) parts.push(pictures);
    const { tokens } = vicoPage.filters.sample(place, state.row);
    if (own?.tiles === 0) parts.push(element("p", { class: "message" }, "This document has no image."));
    else if (!hasPictures) parts.push(element("p", { class: "message" }, "These runs kept no image previews."));
    else if (!shown.pictures.length) parts.push(element("p", { class: "message" }, "The runs kept no image preview of this document."));
    if (own?.tiles) {
      const share = `${own.compressed} of ${own.tiles} tiles compressed, ${number(tokens)} visual tokens`;
      const facts = element("p", { class: "tiling" }, vicoPage.markers.icon(row), element("span", {}, element("b", {}, row.title), `: ${share}`));
      const keys = [element("span", { class: "swatch compressed" }), "compressed "];
      if (own.scores) keys.push(element("span", { class: "score" }, "0.50"), "p(compress)");
      parts.push(facts);
      if (pictures && own.grids) parts.push(element("p", { class: "key" }, keys));
      if (!own.grids) parts.push(element("p", { class: "key" }, "This run recorded no tile grids."));
    } else if (!own) parts.push(element("p", { class: "key" }, `${row.title} was not run on this benchmark.`));
    return parts;
  }

  function link(words, target, label, key) {
    if (target === null) return element("span", { class: "button off", "aria-hidden": "true" }, words);
    const made = element("a", { class: "button", href: vicoPage.state.address({ document: target }), "aria-label": label, "aria-keyshortcuts": key, "data-focus": key }, words);
    made.addEventListener("click", (event) => {
      event.preventDefault();
      vicoPage.state.go({ document: target }, { replace: true });
    });
    return made;
  }

  // The link back, the document's name, and links to the previous and the next document.
  function bar(place, around) {
    const back = element("a", { class: "button", href: vicoPage.state.address({ document: null }), "aria-keyshortcuts": "Escape", "data-focus": "back" }, "All samples");
    back.addEventListener("click", (event) => {
      event.preventDefault();
      vicoPage.state.go({ document: null });
    });
    const category = place.benchmark.category?.[place.own] ?? null;
    return element(
      "div",
      { class: "bar" },
      back,
      element("h3", { tabindex: -1, "data-focus": "title" }, `${place.benchmark.title} ${place.id}`),
      category !== null && element("span", { class: "key" }, place.benchmark.categories[category]),
      element("span", { class: "key" }, around.words),
      element("span", { class: "around" },
        link("←", around.before, "Previous document", "ArrowLeft"), link("→", around.after, "Next document", "ArrowRight")),
    );
  }

  // The view of a document; `around` has the previous and the next document in the selection.
  function view(place, shown, state, around, isChoosing) {
    const words = element("div", { class: "words" },
      element("h4", {}, "Prompt"), text(shown.question, "prompt"),
      element("h4", {}, "Target"), text(shown.target, "target"));
    return element("article", { class: "document" }, bar(place, around),
      element("div", { class: "sides" }, element("div", {}, tiling(place, shown, state)), words),
      element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Answers" }, answers(place, shown, state)),
      choices(state, isChoosing));
  }

  return { view, bar, mark, columns: COLUMNS.map(([title]) => title) };
})();
