"use strict";

// Retention over visual tokens saved: a point a row, with the Pareto front.
vicoPage.plot = (() => {
  const { element, svg, percent } = vicoPage;
  const MARGIN = { top: 14, right: 18, bottom: 46, left: 56 };
  const NAMED_FROM = 620; // px; a narrower plot has no room for names, which the table above has too

  let area;
  let tip;

  function start() {
    area = document.getElementById("plot-area");
    const select = document.getElementById("plot-column");
    const { plots } = vicoPage.data.report;
    plots.forEach((plot, number) => select.append(element("option", { value: number }, plot.column)));
    select.addEventListener("change", () => vicoPage.state.go({ column: Number(select.value) }, { replace: true }));
    if (!plots.length) {
      select.parentElement.hidden = true;
      area.append(element("p", { class: "message" }, "No row has both a retention and token counts."));
      return;
    }
    vicoPage.state.listen((state) => {
      select.value = state.column;
      draw(state);
    });
    let width = 0;
    new ResizeObserver(() => {
      if (area.clientWidth !== width) draw(vicoPage.state.read());
      width = area.clientWidth;
    }).observe(area);
  }

  // Round numbers from low to high, about as many as wanted.
  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, number) => (first + number) * step);
  }

  function scales(points, width, height) {
    const saved = points.map((point) => point.saved);
    // An interval of a few documents may be wider than all points are apart: it is cut off rather than the points pressed
    // together.
    const found = points.map((point) => point.retention);
    const [least, most] = [Math.min(...found), Math.max(100, ...found)];
    const beyond = Math.max(most - least, 4);
    const ends = points.flatMap((point) => [
      point.retention,
      Math.max(point.low ?? point.retention, least - beyond),
      Math.min(point.high ?? point.retention, most + beyond),
    ]);
    const [left, right] = [Math.min(0, ...saved), Math.max(10, ...saved)];
    const [low, high] = [Math.min(...ends), Math.max(100, ...ends)];
    const room = Math.max(high - low, 4);
    const x = { low: left - 0.04 * (right - left), high: right + 0.07 * (right - left) };
    const y = { low: low - 0.08 * room, high: high + 0.08 * room };
    const [inner, tall] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
    return {
      x,
      y,
      toX: (value) => MARGIN.left + ((value - x.low) / (x.high - x.low)) * inner,
      toY: (value) => MARGIN.top + ((y.high - value) / (y.high - y.low)) * tall,
    };
  }

  function draw(state) {
    const width = area.clientWidth;
    if (!width) return;
    const focused = document.activeElement?.closest?.("#plot-area .point")?.dataset.row;
    const { rows, plots, baseline } = vicoPage.data.report;
    const { points, front, column } = plots[state.column];
    const height = Math.round(Math.min(500, Math.max(320, 0.5 * width)));
    const scale = scales(points, width, height);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group" });
    picture.setAttribute("aria-label", `${column}: score retained against visual tokens saved`);
    picture.append(...axes(scale, width, height, baseline), frontLine(points, front, scale));
    // The picked row last, on top of the others.
    const order = [...points].sort((one, other) => (one.row === state.row) - (other.row === state.row));
    // Where points overlap, the mouse means the nearest, not the one on top.
    const nearest = (event) => {
      const box = picture.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const distance = (point) => Math.hypot(scale.toX(point.saved) - x, scale.toY(point.retention) - y);
      return points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    };
    picture.append(...order.map((point) => marked(point, scale, point.row === state.row, nearest)));
    if (width >= NAMED_FROM) picture.append(...names(points, front, rows, scale, width, height));
    tip = element("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    area.replaceChildren(picture, tip);
    if (focused !== undefined) area.querySelector(`.point[data-row="${focused}"]`)?.focus({ preventScroll: true });
  }

  function axes(scale, width, height, baseline) {
    const [bottom, right] = [height - MARGIN.bottom, width - MARGIN.right];
    const parts = [];
    for (const value of ticks(scale.y.low, scale.y.high, height / 56)) {
      const y = scale.toY(value);
      parts.push(svg("line", { class: value === 100 ? "hundred" : "rule", x1: MARGIN.left, x2: right, y1: y, y2: y }));
      parts.push(svg("text", { class: "tick", x: MARGIN.left - 9, y, dy: "0.34em", "text-anchor": "end" }, `${value}`));
    }
    for (const value of ticks(scale.x.low, scale.x.high, width / 90)) {
      const x = scale.toX(value);
      parts.push(svg("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
      parts.push(svg("text", { class: "tick", x, y: bottom + 18, "text-anchor": "middle" }, `${value}`));
    }
    const name = vicoPage.shorten(baseline, width < 520 ? 14 : 30);
    const middle = (MARGIN.top + bottom) / 2;
    parts.push(svg("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }));
    const across = { class: "label", x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" };
    parts.push(svg("text", across, `Visual tokens saved, % of ${name}`));
    const up = { class: "label", transform: `translate(14 ${middle}) rotate(-90)`, "text-anchor": "middle" };
    parts.push(svg("text", up, `Score retained, % of ${name}`));
    return parts;
  }

  // What is known is that so much can be kept while at least so much is saved: steps, not slopes.
  function frontLine(points, front, scale) {
    const ordered = front.map((row) => points.find((point) => point.row === row));
    const path = ordered.map((point, number) => {
      const [x, y] = [scale.toX(point.saved), scale.toY(point.retention)];
      return number ? `V${y}H${x}` : `M${x},${y}`;
    });
    return svg("path", { class: "front", d: path.join("") });
  }

  function marked(point, scale, isPicked, nearest) {
    const { rows } = vicoPage.data.report;
    const row = rows[point.row];
    const [x, y] = [scale.toX(point.saved), scale.toY(point.retention)];
    const high = point.high ?? scale.y.high;
    const label = words(point, row).join(", ");
    const place = svg("g", { transform: `translate(${x} ${y})` }, isPicked && svg("circle", { class: "halo", r: 12 }));
    place.append(vicoPage.markers.shape(row), svg("circle", { class: "target", r: 14 }));
    const pick = (one) => vicoPage.state.go({ row: one.row, page: 1 });
    const show = (one) => tell(one, rows[one.row], scale.toX(one.saved), scale.toY(one.retention));
    const made = svg("g", { class: `point ${vicoPage.markers.hue(row)}`, tabindex: 0, role: "button", "aria-label": label });
    made.dataset.row = point.row;
    if (point.low !== null) made.append(svg("line", { class: "bar", x1: x, x2: x, y1: scale.toY(Math.max(point.low, scale.y.low)), y2: scale.toY(Math.min(high, scale.y.high)) }));
    made.append(place);
    made.addEventListener("mousemove", (event) => show(nearest(event)));
    made.addEventListener("focus", () => show(point));
    for (const name of ["mouseleave", "blur"]) made.addEventListener(name, () => (tip.hidden = true));
    made.addEventListener("click", (event) => pick(nearest(event)));
    made.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      pick(point);
    });
    return made;
  }

  function words(point, row) {
    const lines = [row.title, `${percent(point.retention)} of the score`, `${percent(point.saved)} of visual tokens saved`];
    if (point.low !== null) lines.splice(2, 0, `95% interval ${percent(point.low)} ${point.high === null ? "or more" : `to ${percent(point.high)}`}`);
    if (point.ratio !== null) lines.push(`${percent(point.ratio)} of tiles compressed`);
    return lines;
  }

  function tell(point, row, x, y) {
    const [title, ...others] = words(point, row);
    tip.replaceChildren(element("b", {}, title), ...others.map((line) => element("div", {}, line)));
    tip.hidden = false;
    const left = Math.min(Math.max(0, x - tip.offsetWidth / 2), area.clientWidth - tip.offsetWidth);
    const above = y - tip.offsetHeight - 16;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 0 ? y + 18 : above}px`;
  }

  // Each name stands at the first free place around its point; the crowded ones choose first.
  function names(points, front, rows, scale, width, height) {
    const at = points.map((point) => ({ point, x: scale.toX(point.saved), y: scale.toY(point.retention) }));
    const box = (x, y, wide, tall) => ({ left: x - wide / 2, right: x + wide / 2, top: y - tall / 2, bottom: y + tall / 2 });
    const overlap = (one, other) =>
      Math.max(0, Math.min(one.right, other.right) - Math.max(one.left, other.left)) *
      Math.max(0, Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top));
    const taken = at.map(({ x, y }) => box(x, y, 17, 17));
    for (const { point, x } of at) {
      if (point.low === null) continue;
      const [top, bottom] = [scale.toY(point.high ?? scale.y.high), scale.toY(point.low)];
      taken.push({ left: x - 3, right: x + 3, top, bottom });
    }
    const steps = front.map((row) => at.find(({ point }) => point.row === row));
    for (let number = 1; number < steps.length; number += 1) {
      const [from, to] = [steps[number - 1], steps[number]];
      taken.push({ left: from.x - 1, right: from.x + 1, top: from.y, bottom: to.y });
      taken.push({ left: from.x, right: to.x, top: to.y - 1, bottom: to.y + 1 });
    }
    const inside = { left: MARGIN.left, right: width - 2, top: 2, bottom: height - MARGIN.bottom };
    const crowd = ({ x, y }) => Math.min(...at.map((other) => Math.hypot(other.x - x, other.y - y) || Infinity));
    const ruler = element("canvas").getContext("2d");
    ruler.font = `550 12.5px ${getComputedStyle(area).fontFamily}`;
    const parts = [];
    for (const { point, x, y } of [...at].sort((one, other) => crowd(one) - crowd(other))) {
      const title = vicoPage.shorten(rows[point.row].title, 34);
      const [wide, tall] = [ruler.measureText(title).width + 6, 17];
      let best = null;
      for (const distance of [13, 24, 38, 56]) {
        for (const [across, up] of [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [1, 1], [-1, -1], [-1, 1]]) {
          const shift = across && up ? distance * Math.SQRT1_2 : distance;
          const middle = [x + across * (shift + wide / 2), y + up * (shift + (across ? 0 : tall / 4))];
          const place = box(...middle, wide, tall);
          const cost = taken.reduce((sum, other) => sum + overlap(place, other), 0) + wide * tall - overlap(place, inside);
          if (best === null || cost < best.cost - 1e-6) best = { cost, place, across, up, distance, middle };
        }
        if (best.cost < 1e-6) break;
      }
      taken.push(best.place);
      const hue = vicoPage.markers.hue(rows[point.row]);
      if (best.distance > 24) {
        const end = best.across ? best.middle[0] - (best.across * wide) / 2 + 2 * best.across : best.middle[0];
        parts.push(svg("line", { class: `leader ${hue}`, x1: x, y1: y, x2: end, y2: best.middle[1] }));
      }
      const attributes = { class: `name ${hue}`, x: best.middle[0], y: best.middle[1], dy: "0.34em", "text-anchor": "middle" };
      parts.push(svg("text", attributes, title));
    }
    return parts;
  }

  return { start };
})();
