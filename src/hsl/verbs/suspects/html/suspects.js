"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const { digest, items } = JSON.parse(one("#stored").textContent);
  const place = `hsl-suspects-${digest}`;
  let answers = {}; // rank -> answer
  let shown = items;
  let at = 0;
  const done = []; // [rank, answer before], for undo

  const complain = (text) => {
    one("#error").textContent = text;
    one("#error").hidden = !text;
  };
  try {
    answers = JSON.parse(localStorage.getItem(place) ?? "{}");
  } catch {
    complain("This browser keeps nothing of this page. Download the answers before you close it.");
  }
  const keep = () => {
    try {
      localStorage.setItem(place, JSON.stringify(answers));
    } catch {
      complain("This browser keeps nothing of this page. Download the answers before you close it.");
    }
  };

  const figure = ([title, url]) => {
    const made = document.createElement("figure");
    const image = document.createElement("img");
    const caption = document.createElement("figcaption");
    image.src = url;
    image.alt = caption.textContent = title;
    made.append(image, caption);
    return made;
  };
  const row = (views) => {
    const made = document.createElement("div");
    made.className = "row";
    made.append(...Object.entries(views).map(figure));
    return made;
  };

  const show = (next) => {
    at = Math.max(0, Math.min(shown.length - 1, next));
    const item = shown[at];
    one("#review").hidden = !item;
    one("#nothing").hidden = Boolean(item);
    const judged = items.filter((each) => answers[each.rank]).length;
    one("#progress").max = Math.max(1, items.length);
    one("#progress").value = judged;
    one("#count").textContent = `${judged} of ${items.length} judged`;
    if (!item) return;
    one("#rows").replaceChildren(...item.rows.map(row));
    one("#name").textContent = `${item.rank}. ${item.id}${item.other ? ` and ${item.other}` : ""}`;
    one("#kind").textContent = item.kind;
    one("#text").textContent = item.text;
    one("#score").textContent = item.score.toFixed(3);
    const given = answers[item.rank];
    all("[data-answer]").forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.answer === given)));
    one("[data-move='-1']").disabled = at === 0;
    one("[data-move='1']").disabled = at === shown.length - 1;
    one("#undo").disabled = done.length === 0;
  };
  const set = (rank, answer) => {
    if (answer) answers[rank] = answer;
    else delete answers[rank];
    keep();
  };
  const give = (answer) => {
    const item = shown[at];
    if (!item) return;
    done.push([item.rank, answers[item.rank]]);
    set(item.rank, answer);
    show(at + 1);
  };
  const undo = () => {
    if (!done.length) return;
    const [rank, before] = done.pop();
    set(rank, before);
    const there = shown.findIndex((item) => item.rank === rank);
    show(there < 0 ? at : there);
  };

  const cell = (value) => {
    const text = String(value);
    const neutral = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text; // no formula
    return /[",\n\r]/.test(neutral) ? `"${neutral.replaceAll('"', '""')}"` : neutral;
  };
  const download = () => {
    const given = items.filter((item) => answers[item.rank]);
    const lines = given.map((item) => [item.rank, item.id, item.kind, answers[item.rank]].map(cell).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([["rank,id,kind,answer", ...lines, ""].join("\n")], { type: "text/csv" }));
    link.download = "answers.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  };

  const keys = {
    a: () => give("accept"), r: () => give("reject"), f: () => give("later"), u: undo, d: download,
    ArrowLeft: () => show(at - 1), ArrowRight: () => show(at + 1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT" || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  all("[data-answer]").forEach((each) => each.addEventListener("click", () => give(each.dataset.answer)));
  all("[data-move]").forEach((each) => each.addEventListener("click", () => show(at + Number(each.dataset.move))));
  one("#undo").addEventListener("click", undo);
  one("#download").addEventListener("click", download);
  one("#filter").addEventListener("change", (event) => {
    shown = items.filter((item) => !event.target.value || item.kind === event.target.value);
    show(0);
  });
  const open = items.findIndex((item) => !answers[item.rank]);
  show(open < 0 ? 0 : open);
})();
