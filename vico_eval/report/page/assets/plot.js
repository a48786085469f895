"use strict";

// Retention over visual tokens or a cost: one point per row, with the Pareto front.
vicoPage.plot = (() => {
  const { element, svg, percent } = vicoPage;
  const MARGIN = { top: 14, right: 18, bottom: 46, left: 56 };
  const NAMED_FROM = 620; // px; a narrower plot has its names below it

  let area;
  let tip;

  function start() {
    area = document.getElementById("plot-area");
    const { plots, axes } = vicoPage.data.report;
    const column = choice("plot-column", plots.map((plot) => plot.column), "column");
    const axis = choice("plot-axis", axes.map((one) => one.title), "axis");
    axis.parentElement.hidden = axes.length < 2;
    if (!plots.length) {
      for (const select of [column, axis]) select.parentElement.hidden = true;
      area.append(element("p", { class: "message" }, "No row has both a retention and token counts."));
      return;
    }
    vicoPage.state.listen((state) => {
      column.value = state.column;
      axis.value = state.axis;
      draw(state);
    });
    let width = 0;
    new ResizeObserver(() => {
      if (area.clientWidth !== width) draw(vicoPage.state.read());
      width = area.clientWidth;
    }).observe(area);
  }

  function choice(id, titles, name) {
    const select = document.getElementById(id);
    select.append(...titles.map((title, number) => element("option", { value: number }, title)));
    select.addEventListener("change", () => vicoPage.state.go({ [name]: Number(select.value) }, { replace: true }));
    return select;
  }

  // Round numbers from low to high, about `wanted` of them.
  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, number) => (first + number) * step);
  }

  function scales(points, width, height) {
    const shares = points.map((point) => point.share);
    // An interval from few documents may be wider than the range of all points. It is cut off, so that the points stay
    // apart.
    const found = points.map((point) => point.retention);
    const [least, most] = [Math.min(...found), Math.max(100, ...found)];
    const beyond = Math.max(most - least, 4);
    const ends = points.flatMap((point) => [
      point.retention,
      Math.max(point.low ?? point.retention, least - beyond),
      Math.min(point.high ?? point.retention, most + beyond),
    ]);
    const [few, many] = [Math.min(90, ...shares), Math.max(100, ...shares)];
    const [low, high] = [Math.min(...ends), Math.max(100, ...ends)];
    const room = Math.max(high - low, 4);
    const x = { low: Math.max(0, few - 0.07 * (many - few)), high: many + 0.04 * (many - few) };
    const y = { low: low - 0.08 * room, high: high + 0.08 * room };
    const [inner, tall] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
    return {
      x,
      y,
      // Costs decrease to the right, so better methods are at the top right.
      toX: (value) => MARGIN.left + ((x.high - value) / (x.high - x.low)) * inner,
      toY: (value) => MARGIN.top + ((y.high - value) / (y.high - y.low)) * tall,
    };
  }

  // The points of visible rows with a share on the axis.
  function shown(state) {
    const { plots, axes } = vicoPage.data.report;
    const { name } = axes[state.axis];
    const own = plots[state.column].points.filter((point) => point.shares[name] !== undefined && !state.hidden.has(point.row));
    return own.map((point) => ({ ...point, share: point.shares[name] }));
  }

  function draw(state) {
    const width = area.clientWidth;
    if (!width) return;
    const focused = document.activeElement?.closest?.("#plot-area .point")?.dataset.row;
    const { plots, axes } = vicoPage.data.report;
    const points = shown(state);
    if (!points.length) {
      area.replaceChildren(element("p", { class: "message" }, "No visible row has this score and this cost."));
      return;
    }
    const axis = axes[state.axis];
    const { column, fronts } = plots[state.column];
    const height = Math.round(Math.min(500, Math.max(320, 0.5 * width)));
    const scale = scales(points, width, height);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group" });
    picture.setAttribute("aria-label", `${column}: score retained over ${axis.title}`);
    // The visible part of the front of all rows; a front of only the visible rows would differ.
    const steps = fronts[axis.name].map((row) => points.find((point) => point.row === row)).filter((point) => point);
    picture.append(...axesOf(scale, width, height, axis), frontLine(steps, scale));
    // The picked row last, on top of the others.
    const order = [...points].sort((one, other) => (one.row === state.row) - (other.row === state.row));
    // Where points overlap, the mouse selects the nearest, not the one on top.
    const nearest = (event) => {
      const box = picture.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const distance = (point) => Math.hypot(scale.toX(point.share) - x, scale.toY(point.retention) - y);
      return points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    };
    picture.append(...order.map((point) => marked(point, scale, point.row === state.row, nearest)));
    const named = width >= NAMED_FROM ? nameAll(points, steps, scale, width, height) : null;
    if (named) picture.append(...named);
    tip = element("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    area.replaceChildren(picture, tip);
    if (!named) area.append(vicoPage.names.list(points.map((point) => point.row)));
    if (focused !== undefined) area.querySelector(`.point[data-row="${focused}"]`)?.focus({ preventScroll: true });
  }

  function nameAll(points, steps, scale, width, height) {
    const bar = (point) => (point.low === null ? null : [scale.toY(point.high ?? scale.y.high), scale.toY(point.low)]);
    const spot = (point) => ({ row: point.row, x: scale.toX(point.share), y: scale.toY(point.retention), bar: bar(point) });
    const inside = { left: MARGIN.left, right: width - 2, top: 2, bottom: height - MARGIN.bottom };
    return vicoPage.names.around(points.map(spot), steps.map(spot), inside, getComputedStyle(area).fontFamily);
  }

  function axesOf(scale, width, height, axis) {
    const name = vicoPage.shorten(vicoPage.data.report.baseline, width < 520 ? 14 : 30);
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
    const middle = (MARGIN.top + bottom) / 2;
    parts.push(svg("line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }));
    const across = { class: "label", x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" };
    parts.push(svg("text", across, `${axis.title}, % of ${name}`));
    const up = { class: "label", transform: `translate(14 ${middle}) rotate(-90)`, "text-anchor": "middle" };
    parts.push(svg("text", up, `Score retained, % of ${name}`));
    return parts;
  }

  // A step, not a slope: a point shows what is reachable at its cost, and nothing about values between points.
  function frontLine(steps, scale) {
    const path = steps.map((point, number) => {
      const [x, y] = [scale.toX(point.share), scale.toY(point.retention)];
      return number ? `V${y}H${x}` : `M${x},${y}`;
    });
    return svg("path", { class: "front", d: path.join("") });
  }

  function marked(point, scale, isPicked, nearest) {
    const { rows } = vicoPage.data.report;
    const row = rows[point.row];
    const [x, y] = [scale.toX(point.share), scale.toY(point.retention)];
    const high = point.high ?? scale.y.high;
    const label = words(point, row).join(", ");
    const place = svg("g", { transform: `translate(${x} ${y})` }, isPicked && svg("circle", { class: "halo", r: 12 }));
    place.append(vicoPage.markers.shape(row), svg("circle", { class: "target", r: 14 }));
    const pick = (one) => vicoPage.state.go({ row: one.row, page: 1 });
    const show = (one) => tell(one, rows[one.row], scale.toX(one.share), scale.toY(one.retention));
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
    const lines = [row.title, `${percent(point.retention)} of the score`];
    if (point.low !== null) lines.push(`95% interval ${percent(point.low)} ${point.high === null ? "or more" : `to ${percent(point.high)}`}`);
    for (const { name, title } of vicoPage.data.report.axes) {
      if (point.shares[name] !== undefined) lines.push(`${title}: ${percent(point.shares[name])}`);
    }
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

  return { start };
})();
