"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Sorting: a button in each head; empty cells stay below in either direction.
  const collator = new Intl.Collator("en", { numeric: true });
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if ("sort" in cell.dataset) return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
    const text = cell.textContent.trim();
    return text === "" || text === "–" ? null : text;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
  const sort = (head) => {
    const table = head.closest("table");
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const other = { ascending: "descending", descending: "ascending" };
    const order = other[head.getAttribute("aria-sort")] ?? first;
    all("th[aria-sort]", table).forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, head.cellIndex), row]);
    const known = rows.filter(([value]) => value !== null).sort(([a], [b]) => sign * compare(a, b));
    const absent = rows.filter(([value]) => value === null);
    table.tBodies[0].append(...[...known, ...absent].map(([, row]) => row));
  };
  all("th button").forEach((button) => button.addEventListener("click", () => sort(button.closest("th"))));

  // Filtering: rows and pictures carry the numbers of their classes, group and models.
  const form = document.querySelector("#filters");
  const groups = all("#groups option").map((option) => option.value);
  const chosen = () => {
    const { class: classes, model, group } = form.elements;
    const text = group.value.trim().toLowerCase();
    const exact = groups.findIndex((name) => name.toLowerCase() === text);
    const found = exact >= 0 ? [exact] : groups.flatMap((name, i) => (name.toLowerCase().includes(text) ? [i] : []));
    return {
      class: classes.value && [classes.value],
      model: model.value && [model.value],
      group: text && found.map(String),
    };
  };
  const fits = (element, wanted) =>
    Object.entries(wanted).every(([key, values]) => {
      if (!values || !(key in element.dataset)) return true;
      return element.dataset[key].split(" ").some((number) => values.includes(number));
    });
  const filter = () => {
    const wanted = chosen();
    const counts = { TR: [0, 0], ARTICLE: [0, 0] };
    all("main [data-class], main [data-group], main [data-model]").forEach((element) => {
      element.hidden = !fits(element, wanted);
      const count = counts[element.tagName] ?? [0, 0];
      count[0] += !element.hidden;
      count[1] += 1;
    });
    all(".gallery").forEach((gallery) => {
      const empty = gallery.querySelector(".nothing");
      if (empty) empty.hidden = all("[data-group]", gallery).some((element) => !element.hidden);
    });
    const isOn = Object.values(wanted).some(Boolean);
    form.querySelector("button").disabled = !isOn;
    form.querySelector("output").textContent = isOn
      ? `${counts.TR.join(" of ")} rows and ${counts.ARTICLE.join(" of ")} pictures shown`
      : "";
  };
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;

  // On paper nothing is folded away.
  addEventListener("beforeprint", () => all("details").forEach((each) => (each.open = true)));
})();
