"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const token = new URLSearchParams(location.search).get("token");
  const address = (path, query = {}) => {
    const search = new URLSearchParams(token === null ? query : { ...query, token }).toString();
    return search ? `${path}?${search}` : path;
  };
  const percent = (share) => `${Number((100 * share).toFixed(1))} %`;

  let items = [];
  let version = "";
  let progress = { verdicts: {}, verdict: null, settings: null };
  let place = 0;
  let mask = "overlay"; // or "first": of refined labels, the one before any refinement
  const done = []; // [id, answer before], for undo

  const complain = (text) => {
    one("#error").textContent = text;
    one("#error").hidden = !text;
  };
  const call = async (path, options) => {
    let response;
    try {
      response = await fetch(address(path), options);
    } catch {
      throw new Error("The server does not answer. Start `hsl label review` again; what was answered is kept.");
    }
    const content = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(content.error ?? `The server answered ${response.status}.`);
    return content;
  };

  const source = (kind, item) => address(`${kind}/${encodeURIComponent(item.id)}`, { v: version });
  const load = (image, kind, item) => {
    const url = source(kind, item);
    if (image.getAttribute("src") === url) return;
    image.style.visibility = "hidden"; // never the picture before under the name of this one
    image.src = url;
  };
  const broken = async (image) => {
    const url = image.src;
    const response = await fetch(url).catch(() => null);
    const content = await response?.json().catch(() => ({}));
    if (image.src === url) complain(content?.error ?? "The picture cannot be shown.");
  };
  const drawn = (image) => {
    image.addEventListener("load", () => (image.style.visibility = "visible"));
    image.addEventListener("error", () => broken(image));
  };

  const left = () => items.filter((item) => progress.verdicts[item.id] === null).length;
  const showCount = () => {
    const judged = items.length - left();
    one("#progress").max = items.length;
    one("#progress").value = judged;
    one("#count").textContent = `${judged} of ${items.length} judged`;
  };

  const show = (next, kind = "overlay") => {
    place = Math.max(0, Math.min(items.length - 1, next));
    mask = kind;
    const item = items[place];
    one("#verdict").hidden = true;
    one("#review").hidden = false;
    complain("");
    load(one("#picture"), "picture", item);
    load(one("#overlay"), mask, item);
    one("#picture").alt = `picture ${item.id}`;
    one("#overlay").alt = mask === "first" ? `first mask of ${item.id}` : `mask of ${item.id}`;
    one("#name").textContent = `${place + 1}. ${item.id}`;
    one("#label").textContent = item.label;
    one("#tier").textContent = item.tier;
    one("#quality").textContent = item.quality.toFixed(3);
    one("#uncertain").textContent = percent(item.uncertain);
    one("#foreground").textContent = percent(item.foreground);
    one("#rule").textContent = item.rule_passed ? "passed" : "failed: one tier lower";
    one("#sources").textContent = item.sources;
    const refined = item.agreement !== null;
    one("#agreement-row").hidden = one("#first").hidden = !refined;
    one("#agreement").textContent = refined ? `mean IoU ${item.agreement.toFixed(3)} with the first label` : "";
    if (item.flagged) one("#agreement").textContent += ": among the largest disagreements of its class";
    one("#first").setAttribute("aria-pressed", String(mask === "first"));
    const given = progress.verdicts[item.id];
    all("[data-answer]").forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.answer === given)));
    one("[data-move='-1']").disabled = place === 0;
    one("[data-move='1']").disabled = place === items.length - 1;
    one("#undo").disabled = done.length === 0;
    showCount();
    if (place + 1 < items.length) for (const kind of ["picture", "overlay"]) new Image().src = source(kind, items[place + 1]);
  };

  const cell = (text, head = false) => {
    const made = document.createElement(head ? "th" : "td");
    if (head) made.scope = "row";
    else made.className = "number";
    made.textContent = text;
    return made;
  };
  const button = (text, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", action);
    const row = document.createElement("li");
    row.append(made);
    return row;
  };

  const showVerdict = () => {
    const { verdict, settings, verdicts } = progress;
    const open = verdict.left > 0;
    one("#review").hidden = true;
    one("#verdict").hidden = false;
    showCount();
    const title = open ? "Not finished" : verdict.passed ? "Passed: training takes these labels" : "Failed: training refuses these labels";
    one("#outcome").textContent = title;
    one("#outcome").className = open ? "" : verdict.passed ? "passed" : "failed";
    one("#reasons").replaceChildren(...verdict.reasons.map((text) => {
      const row = document.createElement("li");
      row.textContent = text;
      return row;
    }));
    one("#tiers").replaceChildren(...Object.entries(verdict.tiers).map(([tier, count]) => {
      const row = document.createElement("tr");
      const needed = settings.thresholds[tier];
      const share = count.share === null ? "–" : percent(count.share);
      const numbers = [count.accepted, count.marginal, count.rejected, count.left, share];
      row.append(cell(tier, true), ...numbers.map((text) => cell(text)), cell(needed === undefined ? "–" : percent(needed)));
      return row;
    }));
    one("#share-c").textContent = `Tier C is ${percent(verdict.c_share)} of the data; at most ${percent(settings.max_c_share)} is allowed.`;
    one("#share-c").hidden = verdict.c_share > settings.max_c_share; // a reason says it then
    one("#way-out").hidden = open || verdict.passed;
    const flagged = items.filter((item) => item.flagged).map((item) => verdicts[item.id]);
    const count = (answer) => flagged.filter((given) => given === answer).length;
    one("#disagreements").hidden = flagged.length === 0;
    one("#disagreements").textContent = `Of the ${flagged.length} largest disagreements with the first labels ${count("accept")} are accepted, ` +
      `${count("marginal")} marginal, ${count("reject")} rejected and ${count(null)} left. They are no random sample and decide nothing by themselves.`;
    const disliked = items.flatMap((item, i) =>
      ["marginal", "reject"].includes(verdicts[item.id]) ? [button(`${item.id} (${item.tier}, ${verdicts[item.id]})`, () => show(i))] : []);
    one("#disliked").hidden = disliked.length === 0;
    one("#disliked ul").replaceChildren(...disliked);
    one("#outcome").focus();
  };

  const send = async (id, verdict) => {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id, verdict }) };
    progress = await call("answers", options);
  };
  const open = () => items.findIndex((item) => progress.verdicts[item.id] === null);
  const answer = async (verdict) => {
    if (one("#review").hidden) return;
    const { id } = items[place];
    const before = progress.verdicts[id];
    await send(id, verdict);
    done.push([id, before]);
    if (left() === 0) return showVerdict();
    const later = items.findIndex((item, i) => i > place && progress.verdicts[item.id] === null);
    show(later >= 0 ? later : open());
  };
  const undo = async () => {
    if (done.length === 0) return;
    const [id, before] = done.at(-1);
    await send(id, before);
    done.pop();
    show(items.findIndex((item) => item.id === id));
  };

  // One after the other: a fast hand never answers a picture that it has not come to.
  let queue = Promise.resolve();
  const later = (action) => {
    queue = queue.then(action).catch((error) => complain(error.message));
  };

  const other = () => one("#review").hidden || items[place].agreement === null || show(place, mask === "first" ? "overlay" : "first");
  const keys = {
    a: () => answer("accept"), m: () => answer("marginal"), r: () => answer("reject"), u: undo, f: other,
    ArrowLeft: () => one("#review").hidden || show(place - 1),
    ArrowRight: () => one("#review").hidden || show(place + 1),
  };
  document.addEventListener("keydown", (event) => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const sliding = event.target === one("#opacity") && event.key.startsWith("Arrow");
    if (!action || sliding || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    later(action);
  });
  all("[data-answer]").forEach((each) => each.addEventListener("click", () => later(() => answer(each.dataset.answer))));
  all("[data-move]").forEach((each) => each.addEventListener("click", () => later(() => show(place + Number(each.dataset.move)))));
  one("#first").addEventListener("click", () => later(other));
  one("#undo").addEventListener("click", () => later(undo));
  one("#show-verdict").addEventListener("click", () => later(showVerdict));
  one("#go-back").addEventListener("click", () => later(() => show(place)));

  const slide = () => {
    one("#overlay").style.opacity = one("#opacity").value / 100;
    one("#opacity-value").textContent = `${one("#opacity").value} %`;
  };
  one("#opacity").addEventListener("input", slide);
  slide();
  drawn(one("#picture"));
  drawn(one("#overlay"));

  later(async () => {
    const state = await call("state");
    ({ items, labels: version } = state);
    progress = state;
    if (left() === 0) showVerdict();
    else show(open());
  });
})();
