"use strict";

// The names of a plot's points: each at a free place near its point, or in a list below the plot.
vicoPage.names = (() => {
  const { element, svg } = vicoPage;
  const TALL = 17; // px, of a line of text
  const LONGEST = 34; // characters
  const DISTANCES = [13, 24, 38, 56]; // px from a point, the nearest first
  const AROUND = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [1, 1], [-1, -1], [-1, 1]];

  const box = (x, y, wide, tall) => ({ left: x - wide / 2, right: x + wide / 2, top: y - tall / 2, bottom: y + tall / 2 });
  const overlap = (one, other) =>
    Math.max(0, Math.min(one.right, other.right) - Math.max(one.left, other.left)) *
    Math.max(0, Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top));

  // Boxes that no name may cover: points, their bars, and the steps of the front.
  function obstacles(at, steps) {
    const taken = at.map(({ x, y }) => box(x, y, 17, 17));
    for (const { x, bar } of at) if (bar) taken.push({ left: x - 3, right: x + 3, top: bar[0], bottom: bar[1] });
    for (let number = 1; number < steps.length; number += 1) {
      const [from, to] = [steps[number - 1], steps[number]];
      taken.push({ left: from.x - 1, right: from.x + 1, top: Math.min(from.y, to.y), bottom: Math.max(from.y, to.y) });
      taken.push({ left: Math.min(from.x, to.x), right: Math.max(from.x, to.x), top: to.y - 1, bottom: to.y + 1 });
    }
    return taken;
  }

  // The first free place around a point; null if there is none.
  function free({ x, y }, wide, taken, inside) {
    for (const distance of DISTANCES) {
      for (const [across, up] of AROUND) {
        const shift = across && up ? distance * Math.SQRT1_2 : distance;
        const middle = [x + across * (shift + wide / 2), y + up * (shift + (across ? 0 : TALL / 4))];
        const place = box(...middle, wide, TALL);
        const isInside = wide * TALL - overlap(place, inside) < 1e-6;
        if (isInside && taken.every((other) => overlap(place, other) < 1e-6)) return { place, middle, across, distance };
      }
    }
    return null;
  }

  // The points' names as SVG elements, placed in order of crowding; null if one of them has no room, since a plot with
  // only some of its names would be unclear.
  // `at` are {row, x, y, bar: its ends or null}; `steps` are the front's points; `inside` is the area for names.
  function around(at, steps, inside, family) {
    const { rows } = vicoPage.data.report;
    const crowd = ({ x, y }) => Math.min(...at.map((other) => Math.hypot(other.x - x, other.y - y) || Infinity));
    const taken = obstacles(at, steps);
    const ruler = element("canvas").getContext("2d");
    ruler.font = `550 12.5px ${family}`;
    const parts = [];
    for (const spot of [...at].sort((one, other) => crowd(one) - crowd(other))) {
      const title = vicoPage.shorten(rows[spot.row].title, LONGEST);
      const wide = ruler.measureText(title).width + 6;
      const found = free(spot, wide, taken, inside);
      if (!found) return null;
      taken.push(found.place);
      const hue = vicoPage.markers.hue(rows[spot.row]);
      const [x, y] = found.middle;
      if (found.distance > 24) {
        const end = found.across ? x - (found.across * wide) / 2 + 2 * found.across : x;
        parts.push(svg("line", { class: `leader ${hue}`, x1: spot.x, y1: spot.y, x2: end, y2: y }));
      }
      parts.push(svg("text", { class: `name ${hue}`, x, y, dy: "0.34em", "text-anchor": "middle" }, title));
    }
    return parts;
  }

  // A list of all names with their markers.
  function list(numbers) {
    const { rows } = vicoPage.data.report;
    const items = numbers.map((number) => element("li", {}, vicoPage.markers.icon(rows[number]), element("span", {}, rows[number].title)));
    return element("ul", { class: "legend" }, items);
  }

  return { around, list };
})();
