"use strict";

// The visible table, in its current order, as CSV and LaTeX. Python has formatted each cell in both ways; here they are joined.
vicoPage.downloads = (() => {
  const { element } = vicoPage;
  const [CSV, LATEX] = [0, 1];

  // The visible lines: a row's scores, followed by the small numbers below them, if any.
  function lines(table, kind) {
    const { lines: all, ratio } = vicoPage.data.table;
    const shown = [...vicoPage.state.read().columns].sort((one, other) => one - other);
    const measured = [...table.tBodies[0].rows].filter((line) => !line.hidden).map((line) => all.find((own) => own.row === Number(line.dataset.row)));
    return [...measured, ...all.filter((own) => own.row === null)].flatMap((line) => {
      const below = shown.map((column) => line.below[column][kind]);
      const own = { title: line.title[kind], cells: shown.map((column) => line.cells[column][kind]), isBelow: false };
      const name = kind === CSV ? `${line.title[kind]}, ${ratio[kind]}` : ratio[kind];
      return below.some((text) => text) ? [own, { title: name, cells: below, isBelow: true }] : [own];
    });
  }

  function heads(kind) {
    const { columns, method } = vicoPage.data.table;
    const shown = [...vicoPage.state.read().columns].sort((one, other) => one - other).map((column) => columns[column]);
    return { shown, titles: [method[kind], ...shown.map((column) => column.texts[kind])] };
  }

  function csv(table) {
    const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const all = [heads(CSV).titles, ...lines(table, CSV).map((line) => [line.title, ...line.cells])];
    return all.map((cells) => `${cells.map(quoted).join(",")}\n`).join("");
  }

  function latex(table) {
    const { caption, size, note } = vicoPage.data.table;
    const { shown, titles } = heads(LATEX);
    const italic = (text) => (text ? `\\textit{${text}}` : "");
    const body = lines(table, LATEX).map(({ title, cells, isBelow }) =>
      (isBelow ? [`\\quad\\textit{${title}}`, ...cells.map(italic)] : [title, ...cells]).join(" & "));
    return [
      "% Needs \\usepackage{booktabs}.",
      "\\begin{table*}[t]",
      "  \\centering",
      `  \\caption{${caption}}`,
      `  ${size}\\setlength{\\tabcolsep}{2pt}`,
      `  \\begin{tabular}{@{}l${shown.map((column) => (column.isWords ? "p{80pt}" : "r")).join("")}@{}}`,
      "    \\toprule",
      `    ${titles.join(" & ")} \\\\`,
      "    \\midrule",
      ...body.map((line) => `    ${line} \\\\`),
      "    \\bottomrule",
      "  \\end{tabular}",
      `  \\par\\smallskip\\parbox{\\linewidth}{\\raggedright ${note}}`,
      "\\end{table*}",
      "",
    ].join("\n");
  }

  function save(name, text, type) {
    const address = URL.createObjectURL(new Blob([text], { type }));
    element("a", { href: address, download: name }).click();
    // After the browser has started to read it.
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  function buttons(table) {
    const made = (words, write) => element("button", { type: "button", class: "button", "aria-label": `Table as ${words}`, title: "The visible rows and columns", onclick: write }, words);
    return [
      made("CSV", () => save("table.csv", csv(table), "text/csv")),
      made("LaTeX", () => save("table.tex", latex(table), "application/x-tex")),
    ];
  }

  return { buttons };
})();
