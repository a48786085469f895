"use strict";

// A document's pictures with a row's tiles over them: scores, and the compressed ones shaded.
vicoPage.pictures = (() => {
  const { element } = vicoPage;
  const SMALL = 320; // px; pixels of smaller pictures are shown as they are, not smoothed

  function image(source, attributes = {}) {
    const made = element("img", { alt: "", decoding: "async", draggable: "false", ...attributes });
    made.addEventListener("load", () => {
      made.classList.toggle("small", Math.max(made.naturalWidth, made.naturalHeight) < SMALL);
      made.dispatchEvent(new CustomEvent("shape"));
    });
    made.addEventListener("error", () => made.replaceWith(element("span", { class: "gone" }, "This picture's file is missing.")));
    made.src = source;
    return made;
  }

  // What a row made of each picture: its grid, and its tiles with score and decision.
  function tiled(row) {
    if (!row?.grids) return [];
    const compressed = row.places ? new Set(row.places) : null;
    let next = 0;
    return row.grids.map(([columns, rows, count]) => {
      const tiles = Array.from({ length: count }, (_, number) => ({
        score: row.scores ? row.scores[next + number] : null,
        isCompressed: compressed ? compressed.has(next + number) : false,
      }));
      next += count;
      const inGrid = Math.min(count, columns * rows);
      return { columns, rows, tiles: tiles.slice(0, inGrid), thumbnail: count > columns * rows ? tiles[count - 1] : null };
    });
  }

  function tile({ score, isCompressed }) {
    const state = isCompressed ? "compressed" : "kept";
    const label = score === null ? state : `p(compress) ${score.toFixed(2)}, ${state}`;
    const made = element("span", { class: `tile ${state}`, title: label });
    if (score !== null) made.append(element("span", { class: "score" }, score.toFixed(2)));
    return made;
  }

  function grid(columns, rows, tiles) {
    const made = element("div", { class: "tiles" }, tiles.map(tile));
    made.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    made.style.gridTemplateRows = `repeat(${rows}, minmax(0, 1fr))`;
    return made;
  }

  function stage(source, made, attributes = {}) {
    const shape = made ? made.columns / made.rows : 1;
    const whole = element("div", { class: `stage${source ? "" : " bare"}` });
    // Until the picture is there, and where there is none, the grid's shape keeps its place.
    whole.style.aspectRatio = shape;
    whole.style.setProperty("--shape", shape);
    if (source) {
      const shown = image(source, attributes);
      shown.addEventListener("shape", () => {
        whole.style.aspectRatio = `${shown.naturalWidth} / ${shown.naturalHeight}`;
        whole.style.setProperty("--shape", shown.naturalWidth / shown.naturalHeight);
      });
      whole.append(shown);
    }
    if (made) whole.append(grid(made.columns, made.rows, made.tiles));
    return whole;
  }

  function thumbnail(source, made) {
    const square = element("div", { class: `stage square${source ? "" : " bare"}` });
    if (source) square.append(image(source));
    square.append(grid(1, 1, [made]));
    return element("figure", { class: "thumbnail" }, square, element("figcaption", {}, "thumbnail"));
  }

  // All pictures of a document as a row of the table saw them; null where neither pictures nor grids are known.
  function show(shown, row) {
    const grids = tiled(row);
    const count = Math.max(grids.length, shown.pictures.length);
    if (!count) return null;
    const figures = [];
    for (let number = 0; number < count; number += 1) {
      const [source, made] = [shown.pictures[number] ?? null, grids[number] ?? null];
      const label = count > 1 ? `Picture ${number + 1} of ${count}` : "The document's picture";
      const parts = [stage(source, made, { alt: label })];
      if (made?.thumbnail) parts.push(thumbnail(source, made.thumbnail));
      figures.push(element("div", { class: "picture" }, parts));
    }
    const size = count === 1 ? "one" : count <= 4 ? "few" : count <= 16 ? "many" : "lots";
    return element("div", { class: `pictures ${size}` }, figures);
  }

  // The first picture that there is, small; null where there is none.
  function first(shown, row) {
    const place = shown.pictures.findIndex((source) => source !== null);
    return place < 0 ? null : stage(shown.pictures[place], tiled(row)[place] ?? null, { loading: "lazy" });
  }

  return { show, first };
})();
