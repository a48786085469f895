"use strict";

// The rows' markers and colours, the same as in the report's figures (figures/style.py).
vicoPage.markers = (() => {
  const polygon = (corners, radius, turn = 0) =>
    Array.from({ length: corners }, (_, number) => {
      const angle = turn + (2 * Math.PI * number) / corners - Math.PI / 2;
      return [radius * Math.cos(angle), radius * Math.sin(angle)];
    });

  const star = Array.from({ length: 10 }, (_, number) => {
    const angle = (Math.PI * number) / 5 - Math.PI / 2;
    const radius = number % 2 ? 3 : 7;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });

  const plus = [
    [-2, -6], [2, -6], [2, -2], [6, -2], [6, 2], [2, 2], [2, 6], [-2, 6], [-2, 2], [-6, 2], [-6, -2], [-2, -2],
  ];
  const cross = plus.map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2]);

  const SHAPES = {
    s: [[-5, -5], [5, -5], [5, 5], [-5, 5]],
    "^": polygon(3, 7),
    D: polygon(4, 6.6),
    P: plus,
    X: cross,
    h: polygon(6, 6),
    p: polygon(5, 6.2),
    "*": star,
  };

  function shape(row) {
    if (row.marker === "o") return vicoPage.svg("circle", { r: 5.4 });
    const points = SHAPES[row.marker].map((point) => point.map((value) => value.toFixed(2)).join(",")).join(" ");
    return vicoPage.svg("polygon", { points });
  }

  const hue = (row) => (row.hue === null ? "hue hue-baseline" : `hue hue-${row.hue}`);

  // An icon of a row's marker, for use next to its title.
  function icon(row) {
    return vicoPage.svg("svg", { class: `marker ${hue(row)}`, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, shape(row));
  }

  return { shape, icon, hue };
})();
