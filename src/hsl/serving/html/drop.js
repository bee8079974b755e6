"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  let token = sessionStorage.getItem("token") ?? "";
  let model = null;
  let current = null; // the picture that is shown, and the number of its question: late answers to others are dropped
  let asked = 0;

  const complain = (text) => {
    one("#problem").textContent = text;
    one("#problem").hidden = !text;
  };
  const call = async (path, options = {}) => {
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Error("The server does not answer. Is it still there?");
    }
    if (response.ok) return response;
    const content = await response.json().catch(() => ({}));
    const error = new Error(content.error ?? `The server answered ${response.status}.`);
    error.code = content.code;
    throw error;
  };
  const element = (name, text = "", kind = "") => {
    const made = document.createElement(name);
    made.textContent = text;
    made.className = kind;
    return made;
  };

  const open = async () => {
    try {
      model = await (await call("model")).json();
      one("#token-form").hidden = true;
      one("#card").textContent = model.card;
      one("#about").hidden = false;
      complain("");
    } catch (error) {
      one("#token-form").hidden = error.code !== "no_token";
      complain(error.message);
    }
  };

  const table = (title, names, rows) => {
    const made = element("table");
    const head = element("tr");
    head.append(...names.map((name, i) => element("th", name, i ? "number" : "")));
    made.append(head, ...rows);
    one("#tables").append(element("h2", title), made);
  };
  const row = (name, colour, cells) => {
    const made = element("tr");
    const first = element("td");
    if (colour) {
      const swatch = element("span", "", "swatch");
      swatch.style.background = colour;
      first.append(swatch);
    }
    first.append(name);
    made.append(first, ...cells.map((text) => element("td", text, "number")));
    return made;
  };
  const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);
  const showTables = (said) => {
    one("#tables").replaceChildren();
    for (const [name, head] of Object.entries(said.heads)) {
      const known = model.heads[name];
      if (head.kind === "image") {
        const rows = Object.entries(head.probabilities).sort((a, b) => b[1] - a[1]);
        table(`${name}: ${head.classes.join(", ") || "none"}`, ["class", "probability"], rows.map(([each, p]) => row(each, "", [percent(p)])));
      } else {
        const rows = Object.entries(head.areas).map(([each, area]) =>
          row(each, known.colours[known.classes.indexOf(each)], [percent(area.share), percent(area.confidence)]));
        table(name, ["class", "share", "confidence"], rows);
      }
    }
    if (said.objects !== null) one("#tables").append(element("p", `${said.objects} objects`));
  };

  const paint = async (blob, colours) => {
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    const canvas = one("#mask");
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
    const values = pixels.data;
    const table = colours.map((code) => [1, 3, 5].map((at) => parseInt(code.slice(at, at + 2), 16)));
    for (let at = 0; at < values.length; at += 4) {
      const index = values[at];
      if (index === 0 || !table[index]) values[at + 3] = 0;
      else [values[at], values[at + 1], values[at + 2]] = table[index];
    }
    context.putImageData(pixels, 0, 0);
  };

  const ask = async (force) => {
    const number = ++asked;
    const picture = current;
    complain("");
    one("#force").hidden = one("#result").hidden = true;
    one("#status").textContent = "The model looks at the picture ...";
    const send = (path) => call(`${path}${path.includes("?") ? "&" : "?"}force=${force ? 1 : 0}`, {
      method: "POST", body: picture, headers: { "Content-Type": "application/octet-stream" },
    });
    try {
      if (model === null) await open();
      if (model === null) return;
      const said = await (await send("predict")).json();
      const mask = model.masks === null ? null : await (await send("segment?format=png")).blob();
      if (number !== asked) return;
      showTables(said);
      const shown = one("#picture");
      URL.revokeObjectURL(shown.src);
      shown.src = URL.createObjectURL(picture);
      shown.alt = "the picture that was sent";
      await shown.decode().catch(() => { // a kind that browsers do not show, such as TIFF: the classes stand alone
        shown.src = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='${said.image.width}' height='${said.image.height}'/>`;
        complain("This browser cannot show pictures of this kind; the classes are shown alone.");
      });
      one("#mask").hidden = one("#slide").hidden = mask === null;
      if (mask !== null) await paint(mask, model.heads[model.masks].colours);
      one("#result").hidden = false;
    } catch (error) {
      if (number !== asked) return;
      complain(error.message);
      one("#force").hidden = error.code !== "not_accepted";
      one("#token-form").hidden = error.code !== "no_token";
    } finally {
      if (number === asked) one("#status").textContent = "";
    }
  };
  const take = (files) => {
    const file = [...files].find((each) => each.type.startsWith("image/")) ?? files[0];
    if (!file) return;
    current = file;
    ask(false);
  };

  const drop = one("#drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  one("#file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // the same picture may be chosen again
  });
  one("#force").addEventListener("click", () => ask(true));
  one("#token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = one("#token").value;
    sessionStorage.setItem("token", token);
    open().then(() => current && model && ask(false));
  });
  const slide = () => (one("#mask").style.opacity = one("#opacity").value / 100);
  one("#opacity").addEventListener("input", slide);
  slide();
  open();
})();
