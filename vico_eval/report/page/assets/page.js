"use strict";

// Shared by all scripts: registered data, and creation of elements. Text is set only by textContent and attributes
// only by setAttribute, so nothing from models or data is parsed as HTML.
const vicoPage = {
  data: {},

  // Called by the files in data/.
  register(name, value) {
    this.data[name] = value;
  },

  element(tag, attributes = {}, ...children) {
    return vicoPage.fill(document.createElement(tag), attributes, children);
  },

  svg(tag, attributes = {}, ...children) {
    return vicoPage.fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  },

  fill(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return made;
  },

  number(value, digits = 0) {
    if (value === null || value === undefined) return "–";
    return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  },

  percent(value, digits = 1) {
    return value === null || value === undefined ? "–" : `${vicoPage.number(value, digits)}%`;
  },

  shorten(text, length) {
    // By code points, so that surrogate pairs are not split.
    const characters = text.length > length ? Array.from(text.slice(0, 2 * length)) : null;
    return characters && characters.length > length ? `${characters.slice(0, length - 1).join("").trimEnd()}…` : text;
  },
};

// Chunks of documents, loaded by a script element on demand; the most recent ones are kept.
vicoPage.chunks = (() => {
  const KEPT = 64; // more than a page of cards can need
  const loaded = new Map();

  function load(number) {
    const name = `documents-${number}`;
    return new Promise((resolve, reject) => {
      const script = vicoPage.element("script", { src: `data/${name}.js` });
      script.addEventListener("load", () => {
        resolve(vicoPage.data[name]);
        delete vicoPage.data[name];
        script.remove();
      });
      script.addEventListener("error", () => {
        loaded.delete(number);
        script.remove();
        reject(new Error(`data/${name}.js can't be read; was the whole folder copied?`));
      });
      document.head.append(script);
    });
  }

  function get(number) {
    const found = loaded.get(number) ?? load(number);
    loaded.delete(number);
    loaded.set(number, found);
    if (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
    return found;
  }

  // The number of the file with a document, which is given by its number over all benchmarks.
  function of(which) {
    const starts = vicoPage.data.report.chunks;
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (starts[middle] <= which) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  async function one(which) {
    const chunk = of(which);
    return (await get(chunk))[which - vicoPage.data.report.chunks[chunk]];
  }

  return { of, all: get, document: one };
})();
