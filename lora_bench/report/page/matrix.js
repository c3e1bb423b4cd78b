// The first screen: methods by tasks, one table for each model and source of data, so that
// generated and real data never share a column or an average.
const ROWS = 100;
let order = { column: null, direction: "descending" };

function matrices(cells) {
  const groups = [...groupBy(cells, cell => cell.place.group)].sort((a, b) => rank(a[1]) - rank(b[1]));
  byId("matrices").replaceChildren(...groups.map(([name, found]) => matrix(name, found)));
  for (const made of byId("matrices").querySelectorAll("table")) rove(made);
  if (!groups.length) byId("matrices").append(element("p", "No system fits the filters."));
}
// Real data before generated, many columns before few.
function rank(cells) {
  return (cells[0].place.data === "toy" ? data.places.length : 0) - placesOf(cells).length;
}
function matrix(name, cells) {
  const places = placesOf(cells);
  const rows = [...groupBy(cells, cell => cell.system)].map(([system, found]) => rowOf(system, found, places));
  sortRows(rows);
  const made = element("table", undefined, { class: "matrix" });
  made.append(element("caption", caption(name, places, cells)), heads(places));
  made.append(...listed(rows, ROWS, row => shownRow(row, places), places.length + 2));
  const references = referenceRows(places);
  if (references.length) made.append(element("tbody", references, { class: "references" }));
  return element("div", made, { class: "wide", tabindex: "0", role: "region", "aria-label": `Scores: ${name}` });
}
function rowOf(system, cells, places) {
  const row = { system, cells: new Map(cells.map(cell => [cell.place, cell])) };
  const means = cells.map(cell => cell.mean).filter(mean => mean !== null);
  row.known = means.length;
  row.order = means.length ? means.reduce((a, b) => a + b, 0) / means.length : null;
  const whole = places.length > 1 && places.every(place => place.first && (row.cells.get(place)?.mean ?? null) !== null);
  row.average = whole ? row.order : null;
  return row;
}
function sortRows(rows) {
  const sign = order.direction === "ascending" ? 1 : -1;
  const value = row => order.column === null ? row.order : order.column === "average" ? row.average : row.cells.get(data.places[order.column])?.mean ?? null;
  if (byId("sort").value === "name") rows.sort((a, b) => a.system.localeCompare(b.system, "en", { numeric: true }));
  else rows.sort((a, b) => {
    if (order.column === null && a.known !== b.known) return b.known - a.known;
    const [x, y] = [value(a), value(b)];
    return x === null || y === null ? (x === null) - (y === null) : sign * (x - y);
  });
}
function caption(name, places, cells) {
  const seeds = new Set(cells.filter(cell => cell.n).map(cell => cell.n)), rows = new Set(places.map(place => place.rows));
  const facts = [rows.size === 1 && places[0].rows !== null ? counted(places[0].rows, "training row") : "", seeds.size === 1 ? counted([...seeds][0], "seed") : ""];
  return [name, ...facts].filter(Boolean).join(", ");
}
function heads(places) {
  const top = element("tr", element("th", "method", { scope: "col", rowspan: 2 }));
  for (const [task, found] of groupBy(places, place => place.task))
    top.append(element("th", task, { scope: "colgroup", colspan: found.length, class: "number" }));
  const low = element("tr", places.map(place => sortHead(place.position, place.head)));
  if (places.length > 1) {
    top.append(element("th", "", { scope: "colgroup", class: "number", "aria-hidden": "true" }));
    low.append(sortHead("average", "average"));
  }
  return element("thead", [top, low]);
}
function sortHead(column, name) {
  const button = element("button", name, { type: "button" });
  button.addEventListener("click", () => {
    order = { column, direction: order.column === column && order.direction === "descending" ? "ascending" : "descending" };
    byId("sort").value = "";
    render();
  });
  return element("th", button, { scope: "col", class: "number", "aria-sort": order.column === column && !byId("sort").value ? order.direction : undefined });
}
function shownRow(row, places) {
  const made = element("tr", nameHead(row.system));
  for (const place of places) made.append(element("td", row.cells.has(place) ? scoreButton(row.cells.get(place)) : "–"));
  if (places.length > 1) made.append(element("td", decimals(row.average, 1)));
  return made;
}
function scoreButton(cell) {
  const parts = cell.n ? [decimals(cell.mean, 1)] : ["failed"];
  if (cell.sd !== null) parts.push(" ", element("small", `±${decimals(cell.sd, 1)}`));
  if (cell.n) parts.push(" ", element("small", `(${cell.n}${cell.failed ? `, ${cell.failed} failed` : ""})`, { class: "seeds" }));
  const button = element("button", parts, { type: "button", class: cell.best ? "best" : undefined, "aria-describedby": "tip", "aria-haspopup": "dialog" });
  for (const name of ["mouseenter", "focus"]) button.addEventListener(name, () => showTip(button, summary(cell)));
  for (const name of ["mouseleave", "blur"]) button.addEventListener(name, hideTip);
  button.addEventListener("click", () => openDetails(cell));
  return button;
}
function summary(cell) {
  if (!cell.n) return `${cell.system}\n${cell.place.title}: ${counted(cell.failed, "failed run")}`;
  const seeds = Object.entries(cell.scores).slice(0, 10).map(([seed, score]) => `seed ${seed}: ${decimals(score, 1)}`).join(", ");
  const failed = cell.failed ? `\n${counted(cell.failed, "failed run")}` : "";
  return `${cell.system}\n${cell.place.title} ${decimals(cell.mean, 1)}\n95 % interval: ${interval(cell.low, cell.high)}\n${seeds}${failed}`;
}
function showTip(near, content) {
  const tip = byId("tip"), box = near.getBoundingClientRect();
  tip.textContent = content;
  tip.hidden = false;
  const below = box.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.top = `${below ? box.bottom + 6 : Math.max(0, box.top - 6 - tip.offsetHeight)}px`;
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 4))}px`;
}
function hideTip() {
  byId("tip").hidden = true;
}
function referenceRows(places) {
  const names = new Set(places.flatMap(place => Object.keys(place.references)));
  return [...names].map(name => element("tr", [
    element("th", name, { scope: "row" }),
    ...places.map(place => element("td", decimals(place.references[name], 1))),
    ...(places.length > 1 ? [element("td", "–")] : []),
  ]));
}
// One score of each table is in the tab order; the arrow keys move to the others.
function rove(made) {
  const grid = () => [...made.querySelectorAll("tbody tr")].map(row => [...row.querySelectorAll("td")].map(cell => cell.querySelector("button")));
  const buttons = [...made.querySelectorAll("tbody button")];
  buttons.forEach((button, i) => button.tabIndex = i ? -1 : 0);
  made.addEventListener("keydown", event => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || event.target.tagName !== "BUTTON") return;
    const rows = grid();
    let y = rows.findIndex(row => row.includes(event.target));
    if (y < 0) return;
    let x = rows[y].indexOf(event.target);
    do [y, x] = [y + step[0], x + step[1]]; while (rows[y] && x >= 0 && x < rows[y].length && !rows[y][x]);
    const next = rows[y]?.[x];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
