"use strict";

// Lists of checkboxes to choose columns and rows.
vicoPage.choose = (() => {
  const { element } = vicoPage;
  const MANY = 6; // checkboxes; longer lists have several columns

  function box(title, isOn, change, key) {
    const input = element("input", { type: "checkbox", checked: isOn, "data-focus": key });
    input.addEventListener("change", () => change(input.checked));
    return element("label", { class: "switch" }, input, element("span", {}, title));
  }

  // A group of checkboxes under a heading, with an "All" box if there are more than two.
  // `items` are [number, title]; `chosen` is a set of numbers; `change` receives the new set.
  function group(name, items, chosen, change) {
    const numbers = items.map(([number]) => number);
    const turn = (some, isOn) => {
      const next = new Set(chosen);
      for (const number of some) isOn ? next.add(number) : next.delete(number);
      change(next);
    };
    const isAll = numbers.every((number) => chosen.has(number));
    const all = items.length > 2 && box("All", isAll, (isOn) => turn(numbers, isOn), `${name}-all`);
    const boxes = items.map(([number, title]) => box(title, chosen.has(number), (isOn) => turn([number], isOn), `${name}-${number}`));
    return element("fieldset", { class: items.length > MANY ? "long" : null }, element("legend", {}, name), all, boxes);
  }

  // The same for a set of hidden items.
  function except(name, items, hidden, change) {
    const shown = new Set(items.map(([number]) => number).filter((number) => !hidden.has(number)));
    return group(name, items, shown, (next) => change(new Set(items.map(([number]) => number).filter((number) => !next.has(number)))));
  }

  return { group, except };
})();
