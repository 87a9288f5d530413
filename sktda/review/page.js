"use strict";
// What is decided about which row; everything on the page follows from it. Texts of the data only enter as textContent.
const data = JSON.parse(document.getElementById("data").textContent);
const byRow = new Map(data.rows.map((card) => [card.row, card]));
const name = new Map(data.classes); // class as in the data -> as shown
const storage = "sktda-review:" + data.key;
const regression = data.task === "regression";
const ALIKE = 20;
const DONE = { keep: "kept", drop: "dropped", relabel: "relabelled", skip: "skipped" };
const $ = (id) => document.getElementById(id);

let decided = new Map(Object.entries(data.decided).map(([row, made]) => [Number(row), made]));
let history = []; // of [[row, what was decided before]]
let current = null;
let keepsDecisions = true;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(storage) || "[]");
    for (const [row, made] of stored) if (byRow.has(row)) decided.set(row, made);
    localStorage.setItem(storage + ":", "");
    localStorage.removeItem(storage + ":");
  } catch {
    keepsDecisions = false;
  }
}

function save() {
  try {
    localStorage.setItem(storage, JSON.stringify([...decided]));
  } catch {
    keepsDecisions = false;
  }
}

const brief = (text) => (text.length > 40 ? text.slice(0, 39) + "…" : text);
const pairOf = (card) => (regression ? card.direction : JSON.stringify([card.given, card.suggested]));
const pairText = (card) =>
  regression ? `given value ${card.direction}` : `${card.givenText} → ${card.suggestedText}`;
const title = (card) => (data.index ? `${data.index} ${card.index}` : `Row ${card.index}`);

function contains(card, text) {
  const cells = (card.columns || []).map((column) => column.values[0]);
  return [card.index, card.givenText, card.suggestedText, ...cells].some((cell) => cell.toLowerCase().includes(text));
}

/** The rows that the filters let through, in the chosen order; row `also` in any case. */
function visible(also = null) {
  const [state, pair, text] = [$("state").value, $("pair").value, $("find").value.trim().toLowerCase()];
  const fits = (card) => {
    const made = (decided.get(card.row) || [""])[0];
    const right = state === "all" || (state === "open" ? !made : state === "done" ? made : made === state);
    return right && (!pair || pairOf(card) === pair) && (!text || contains(card, text));
  };
  const rows = data.rows.filter((card) => card.row === also || fits(card));
  if ($("order").value === "pair") {
    const size = new Map(pairs().map((entry, i) => [entry[0], i]));
    rows.sort((a, b) => size.get(pairOf(a)) - size.get(pairOf(b))); // stable: the worst stay first
  }
  return rows;
}

/** [pair, text, rows] of all pairs, the largest first. */
function pairs() {
  const found = new Map();
  for (const card of data.rows) {
    const entry = found.get(pairOf(card)) || [pairOf(card), pairText(card), 0];
    entry[2] += 1;
    found.set(entry[0], entry);
  }
  return [...found.values()].sort((a, b) => b[2] - a[2]);
}

function move(step) {
  const rows = visible(current);
  const at = rows.findIndex((card) => card.row === current);
  show(rows[Math.min(Math.max(at + step, 0), rows.length - 1)]?.row ?? null);
}

/** Decide about rows and go on to the next; label: the new one of a relabelling, null for each row's suggestion. */
function decide(rows, decision, label = null) {
  const before = visible(current);
  const made = [];
  for (const row of rows) {
    const card = byRow.get(row);
    const to = decision === "relabel" ? (label === null ? card.suggested : label) : "";
    // a relabelling to the label that the row has is no change
    const entry = decision === "relabel" && to === card.given ? ["keep", ""] : [decision, to];
    made.push([row, decided.get(row)]);
    decided.set(row, entry);
  }
  if (!made.length) return;
  history.push([current, made]);
  save();
  const done = new Set(rows);
  const at = before.findIndex((card) => card.row === current);
  const open = (card) => !done.has(card.row);
  const next = before.slice(at + 1).find(open) || before.slice(0, Math.max(at, 0)).find(open);
  const what = rows.length > 1 ? `${rows.length} rows` : title(byRow.get(rows[0]));
  show(next ? next.row : null);
  say(`${what}: ${text(decided.get(rows[0]))}.`);
}

function undo() {
  const step = history.pop();
  if (!step) return;
  for (const [row, before] of step[1]) {
    if (before) decided.set(row, before);
    else decided.delete(row);
  }
  save();
  show(step[0]);
  say("Undone.");
}

const text = ([decision, label]) =>
  decision === "relabel" ? `relabelled to ${name.get(label) || label}` : DONE[decision];

const say = (what) => ($("said").textContent = what);

function picture(uri, alt, large) {
  const image = element("img", { src: uri, alt });
  if (uri.startsWith("data:image/png")) image.className = "exact";
  if (!large) return image;
  const button = element("button", { type: "button", title: "Enlarge" }, image);
  button.addEventListener("click", () => zoom(uri, alt));
  return button;
}

function zoom(uri, alt) {
  $("large").src = uri;
  $("large").alt = alt;
  $("large").className = uri.startsWith("data:image/png") ? "exact" : "";
  $("zoom").showModal();
}

function pictures(card) {
  const alt = `${title(card)}, given ${card.givenText}, suggested ${card.suggestedText}`;
  const own = element("figure", { className: "suspect" }, picture(card.picture, alt, true));
  own.append(element("figcaption", {}, `this row: ${card.givenText}`));
  const near = card.near.map((other) =>
    element("figure", {}, picture(data.pictures[other.row], `Row ${other.index}, label ${other.given}`, true),
      element("figcaption", {}, other.given, element("br"), element("small", {}, `row ${other.index}`))));
  return element("div", { className: "pictures" }, own, ...near);
}

function table(card) {
  const head = element("tr", {}, element("th", { scope: "col" }, "column"), element("th", { scope: "col" }, "this row"),
    ...card.near.map((other) => element("th", { scope: "col" }, `row ${other.index}`)));
  const given = element("tr", {}, element("th", { scope: "row" }, regression ? "given value" : "given label"),
    element("td", {}, element("b", {}, card.givenText)), ...card.near.map((other) => element("td", {}, other.given)));
  const rows = (card.columns || []).map((column) => {
    const cell = element("th", { scope: "row" });
    if (column.differs) cell.append(element("span", { className: "mark", title: "differs" }, "≠"), " ");
    cell.append(column.name);
    const row = element("tr", {}, cell, ...column.values.map((value) => element("td", {}, value)));
    if (column.differs) row.className = "differs";
    return row;
  });
  const caption = element("caption", {}, `${title(card)} beside its nearest rows with the suggested label`);
  return element("div", { className: "scroll", role: "region", "aria-label": "Cells", tabIndex: 0 },
    element("table", { className: "values" }, caption, element("thead", {}, head), element("tbody", {}, given, ...rows)));
}

function show(row) {
  current = row;
  const card = row === null ? null : byRow.get(row);
  const box = $("card");
  box.replaceChildren();
  if (!card) {
    box.append(element("h2", {}, "No row to show"),
      element("p", {}, "Every row that the filters let through is decided. Save the decisions, or show others."));
  } else {
    const made = decided.get(row);
    box.append(
      element("div", { className: "title" }, element("h2", {}, title(card)), element("p", { className: "detail" },
        `label quality ${card.quality.toFixed(3)}${card.noisy ? "" : ", not flagged"}${made ? ", " + text(made) : ""}`)),
      element("p", { className: "change" }, element("span", {}, "given ", element("b", {}, card.givenText)),
        element("span", { ariaHidden: "true" }, "→"), element("span", {}, "suggested ",
          element("b", { className: "suggested" }, card.suggestedText))));
    if (card.picture) box.append(pictures(card));
    if (card.columns || !card.picture) box.append(table(card));
    if (card.leftOut) box.append(element("p", { className: "detail" }, `${card.leftOut} columns with smaller differences left out`));
    if (!card.near.length) box.append(element("p", { className: "detail" }, "No row beside it: none that is not flagged carries the suggestion."));
  }
  buttons(card);
  alike(card);
  progress();
}

function buttons(card) {
  const made = (card && decided.get(card.row)) || ["", ""];
  for (const id of ["keep", "drop", "skip", "relabel"]) {
    $(id).disabled = !card;
    $(id).classList.toggle("chosen", made[0] === id);
    $(id).setAttribute("aria-pressed", String(made[0] === id));
  }
  $("relabel").disabled = !card || card.suggested === card.given;
  $("to").textContent = card ? `Relabel to ${brief(card.suggestedText)}` : "Relabel";
  $("undo").disabled = !history.length;
  for (const button of document.querySelectorAll("#classes button")) button.disabled = !card;
}

/** The next undecided rows of the same pair, with a tick each. */
function alike(card) {
  const rows = visible(current);
  const at = rows.findIndex((other) => card && other.row === card.row);
  const same = (other) => card && !decided.has(other.row) && pairOf(other) === pairOf(card);
  const found = rows.slice(at + 1).filter(same).slice(0, ALIKE);
  $("alike").hidden = !found.length;
  if (!found.length) return;
  $("alike-title").textContent = `${found.length} more like it: ${pairText(card)}`;
  $("to-all").textContent = regression ? "Relabel all as suggested" : `Relabel all to ${brief(card.suggestedText)}`;
  $("relabel-all").disabled = card.suggested === card.given;
  $("tiles").replaceChildren(...found.map((other) => {
    const label = element("label", {}, element("input", { type: "checkbox", checked: true, value: other.row }), " ", title(other));
    if (regression) label.append(element("span", { className: "wide" }, `${other.givenText} → ${other.suggestedText}`));
    const cells = (other.columns || []).filter((column) => column.differs).slice(0, 3);
    for (const column of cells) label.append(element("span", { className: "wide detail" }, `${column.name}: ${column.values[0].slice(0, 80)}`));
    if (other.picture) label.append(picture(other.picture, `${title(other)}, given ${other.givenText}`, false));
    return label;
  }));
}

function decideAlike(decision) {
  if (current === null || $("alike").hidden || (decision === "relabel" && $("relabel-all").disabled)) return;
  const ticked = [...document.querySelectorAll("#tiles input:checked")].map((box) => Number(box.value));
  decide([current, ...ticked], decision);
}

function progress() {
  const [n, all] = [decided.size, data.rows.length];
  $("bar").max = Math.max(all, 1);
  $("bar").value = n;
  $("count").textContent = `${n.toLocaleString("en")} of ${all.toLocaleString("en")} decided`;
  $("kept").textContent = keepsDecisions
    ? "Decisions also stay in this browser, for these data."
    : "This browser keeps nothing for this page: save the file before you close it.";
}

const quoted = (cell) => (/[",\r\n]|^\s|\s$/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);

function csv() {
  const columns = ["row", ...(data.index ? [data.index] : []), "given_label", "suggested_label", "decision", "new_label"];
  const rows = data.rows.filter((card) => decided.has(card.row)).map((card) => {
    const [decision, label] = decided.get(card.row);
    const index = data.index ? [card.index] : [];
    return [String(card.row), ...index, card.given, card.suggested, decision === "skip" ? "" : decision, label];
  });
  return [columns, ...rows].map((row) => row.map(quoted).join(",") + "\n").join("");
}

function exportFile() {
  const link = element("a", { href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })), download: "decisions.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`decisions.csv has ${decided.size} rows.`);
}

function forget() {
  if (!decided.size || !confirm(`Forget the decisions about ${decided.size} rows?`)) return;
  history.push([current, [...decided].map(([row, made]) => [row, made])]);
  decided = new Map();
  save();
  show(visible()[0]?.row ?? null);
  say("All decisions are forgotten; Undo brings them back.");
}

/** Buttons for up to ten classes, by the digits; a list for more; a field for numbers. */
function choices() {
  const box = $("classes");
  if (regression) {
    const field = element("input", { type: "number", step: "any", id: "value" });
    const go = element("button", { type: "button" }, "Relabel");
    const set = () => {
      if (field.value !== "" && current !== null) decide([current], "relabel", String(Number(field.value)));
      field.value = "";
    };
    go.addEventListener("click", set);
    field.addEventListener("keydown", (event) => event.key === "Enter" && set());
    box.append(element("label", {}, "Another value ", field), go);
    return;
  }
  if (data.classes.length <= 10) {
    data.classes.forEach(([label, shown], i) => {
      const button = element("button", { type: "button", value: label }, element("kbd", {}, String((i + 1) % 10)), " ", brief(shown));
      button.addEventListener("click", () => current !== null && decide([current], "relabel", label));
      box.append(button);
    });
    return;
  }
  const list = element("select", { id: "value" }, ...data.classes.map(([label, shown]) => element("option", { value: label }, shown)));
  const go = element("button", { type: "button" }, "Relabel");
  go.addEventListener("click", () => current !== null && decide([current], "relabel", list.value));
  list.addEventListener("keydown", (event) => event.key === "Enter" && go.click());
  box.append(element("label", {}, "Any class ", list), go);
}

function press(event) {
  const typing = event.target.matches("input[type=search], input[type=number], select, textarea");
  if (typing && event.key === "Escape") event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !$("keys").checked || $("zoom").open) return;
  const key = event.key.toLowerCase();
  const click = (id) => $(id).click();
  const does = {
    k: () => click(event.shiftKey ? "keep-all" : "keep"),
    r: () => click(event.shiftKey ? "relabel-all" : "relabel"),
    d: () => click(event.shiftKey ? "drop-all" : "drop"),
    s: () => click("skip"), u: undo, e: exportFile,
    z: () => document.querySelector(".suspect button")?.click(),
    f: () => $("find").focus(),
    c: () => ($("value") || document.querySelector("#classes button"))?.focus(),
    arrowleft: () => move(-1), arrowright: () => move(1),
  };
  const digit = /^[0-9]$/.test(key) ? document.querySelectorAll("#classes button")[(Number(key) + 9) % 10] : null;
  if (digit && !regression && data.classes.length <= 10) digit.click();
  else if (does[key]) does[key]();
  else return;
  event.preventDefault();
}

load();
choices();
$("pair").append(...pairs().map(([pair, shown, n]) => element("option", { value: pair }, `${shown} (${n})`)));
for (const decision of ["keep", "relabel", "drop", "skip"]) {
  $(decision).addEventListener("click", () => current !== null && decide([current], decision));
  $(decision + "-all")?.addEventListener("click", () => decideAlike(decision));
}
$("undo").addEventListener("click", undo);
$("back").addEventListener("click", () => move(-1));
$("on").addEventListener("click", () => move(1));
$("export").addEventListener("click", exportFile);
$("forget").addEventListener("click", forget);
$("filters").addEventListener("input", () => show(visible()[0]?.row ?? null));
$("filters").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", press);
show(visible()[0]?.row ?? null);
