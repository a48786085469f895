"use strict";

// A document's images overlaid with a row's tiles: scores, and shading of compressed tiles.
vicoPage.pictures = (() => {
  const { element } = vicoPage;
  const SMALL = 320; // px; smaller images are scaled without smoothing

  function image(source, attributes = {}) {
    const made = element("img", { alt: "", decoding: "async", draggable: "false", ...attributes });
    made.addEventListener("load", () => {
      made.classList.toggle("small", Math.max(made.naturalWidth, made.naturalHeight) < SMALL);
      made.dispatchEvent(new CustomEvent("shape"));
    });
    made.addEventListener("error", () => made.replaceWith(element("span", { class: "gone" }, "This image's file is missing.")));
    made.src = source;
    return made;
  }

  // Each image's grid in a row, and its tiles with score and decision.
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
    // Until the image is loaded, or without one, the grid's shape reserves the space.
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

  // All images of a document with a row's tiles; null if neither images nor grids are known.
  function show(shown, row) {
    const grids = tiled(row);
    const count = Math.max(grids.length, shown.pictures.length);
    if (!count) return null;
    const figures = [];
    for (let number = 0; number < count; number += 1) {
      const [source, made] = [shown.pictures[number] ?? null, grids[number] ?? null];
      const label = count > 1 ? `Image ${number + 1} of ${count}` : "The document's image";
      const parts = [stage(source, made, { alt: label })];
      if (made?.thumbnail) parts.push(thumbnail(source, made.thumbnail));
      figures.push(element("div", { class: "picture" }, parts));
    }
    const size = count === 1 ? "one" : count <= 4 ? "few" : count <= 16 ? "many" : "lots";
    return element("div", { class: `pictures ${size}` }, figures);
  }

  // The first available image, small; null if there is none.
  function first(shown, row) {
    const place = shown.pictures.findIndex((source) => source !== null);
    return place < 0 ? null : stage(shown.pictures[place], tiled(row)[place] ?? null, { loading: "lazy" });
  }

  return { show, first };
})();
