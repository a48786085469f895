"use strict";

// One document: its pictures, question and target, and each row's answer.
vicoPage.document = (() => {
  const { element, number, percent } = vicoPage;
  const LONGEST = 600; // characters shown of a text before it is asked for

  // Text as it stands; a long one is cut, with a button for the rest.
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

  function answers(place, shown, state) {
    const { rows, baseline } = vicoPage.data.report;
    const lines = rows.map((row, which) => {
      const own = shown.rows[which];
      if (!own) return null;
      const sample = vicoPage.samples.sample(place, which);
      const title = [vicoPage.markers.icon(row), element("span", {}, row.title)];
      const said = own.failure !== undefined ? element("div", { class: "text failure" }, `Failed: ${own.failure}`) : text(own.answer, "answer");
      const isPicked = which === state.row;
      const pick = element("button", { type: "button", class: "pick", "aria-pressed": String(isPicked), "data-focus": `row-${which}` }, title);
      const line = element(
        "tr",
        { class: isPicked ? "picked" : null },
        element("th", { scope: "row" }, pick, row.runs > 1 && element("small", {}, `the first of ${row.runs} runs`)),
        element("td", { class: "said" }, element("div", {}, mark(sample.score, sample.isFailed), said, sample.differs && element("small", { class: "tag" }, "differs"))),
        element("td", { class: "number", "data-name": "score" }, number(sample.score, Number.isInteger(sample.score) ? 0 : 1)),
        element("td", { class: "number", "data-name": "visual tokens" }, number(sample.tokens)),
        element("td", { class: "number", "data-name": "compressed" }, own.tiles === undefined ? "–" : `${own.compressed} of ${own.tiles}`),
      );
      line.addEventListener("click", (event) => {
        if (event.target.closest(".link") || String(getSelection())) return;
        vicoPage.state.go({ row: which }, { replace: true });
      });
      return line;
    });
    const heads = ["Method", "Answer", "Score", "Visual tokens", "Compressed tiles"];
    const head = element("tr", {}, heads.map((name, column) => element("th", { scope: "col", class: column > 1 ? "number" : null }, name)));
    const caption = element("caption", {}, `Answers of all rows. A click on one shows its tiles; “differs”: not ${baseline}'s answer.`);
    return element("table", { class: "answers" }, caption, element("thead", {}, head), element("tbody", {}, lines));
  }

  function tiling(place, shown, state) {
    const { rows, hasPictures } = vicoPage.data.report;
    const [row, own] = [rows[state.row], shown.rows[state.row]];
    const pictures = vicoPage.pictures.show(shown, own);
    const parts = [];
    if (pictures) parts.push(pictures);
    const { tokens } = vicoPage.samples.sample(place, state.row);
    if (own?.tiles === 0) parts.push(element("p", { class: "message" }, "This document has no picture."));
    else if (!hasPictures) parts.push(element("p", { class: "message" }, "These runs kept no pictures."));
    else if (!shown.pictures.length) parts.push(element("p", { class: "message" }, "The runs kept no picture of this document."));
    if (own?.tiles) {
      const share = `${own.compressed} of ${own.tiles} tiles compressed, ${number(tokens)} visual tokens`;
      const facts = element("p", { class: "tiling" }, vicoPage.markers.icon(row), element("span", {}, element("b", {}, row.title), `: ${share}`));
      const keys = [element("span", { class: "swatch compressed" }), "compressed "];
      if (own.scores) keys.push(element("span", { class: "score" }, "0.50"), "p(compress)");
      parts.push(facts);
      if (pictures && own.grids) parts.push(element("p", { class: "key" }, keys));
      if (!own.grids) parts.push(element("p", { class: "key" }, "This run kept no tile grids."));
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

  // The view of the document of a number; `around` are those before and after it in the selection.
  function view(place, shown, state, around) {
    const back = element("a", { class: "button", href: vicoPage.state.address({ document: null }), "aria-keyshortcuts": "Escape" }, "All samples");
    back.addEventListener("click", (event) => {
      event.preventDefault();
      vicoPage.state.go({ document: null });
    });
    const bar = element(
      "div",
      { class: "bar" },
      back,
      element("h3", { tabindex: -1 }, `${place.benchmark.title} ${place.id}`),
      element("span", { class: "key" }, around.words),
      element("span", { class: "around" },
        link("←", around.before, "Previous document", "ArrowLeft"), link("→", around.after, "Next document", "ArrowRight")),
    );
    const words = element("div", { class: "words" },
      element("h4", {}, "Question"), text(shown.question, "question"),
      element("h4", {}, "Target"), text(shown.target, "target"));
    return element("article", { class: "document" }, bar,
      element("div", { class: "sides" }, element("div", {}, tiling(place, shown, state)), words),
      element("div", { class: "scroll" }, answers(place, shown, state)));
  }

  return { view, mark };
})();
