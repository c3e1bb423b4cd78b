// The numbers of the page, the filters, and pairs.
const data = JSON.parse(document.getElementById("content").textContent);
const byId = id => document.getElementById(id);
const text = position => data.texts[position];
const [TRIAL_RUNS, TRIAL_COSTS, TRIAL_CURVE] = [0, 1, 2];
const [KEY, STATUS, SEED, COMMAND, COMMIT, STARTED, SPLITS, VERSIONS, ERROR] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

data.places.forEach((place, position) => {
  place.position = position;
  place.group = `${place.model}, ${place.data} data`;
  place.words = `${place.task} ${place.metric} ${place.condition} ${place.group}`.toLowerCase();
});
// The condition is shown only if it distinguishes columns of one metric.
for (const alike of groupBy(data.places, place => JSON.stringify([place.group, place.task, place.metric])).values())
  for (const place of alike) {
    place.head = [place.metric || "score", alike.length > 1 && place.condition].filter(Boolean).join(", ");
    place.title = `${place.task} ${place.head}`;
  }
for (const protocol in data.cells) {
  data.cells[protocol] = data.cells[protocol].map(([system, place, trial, mean, sd, low, high, failed, scores], position) => ({
    position, system: text(system), place: data.places[place], trial: data.trials[trial], mean, sd, low, high, failed, scores,
    n: Object.keys(scores).length, words: `${text(system)} ${data.places[place].words}`.toLowerCase(),
  }));
}

for (const place of data.places) place.pairs = {};
for (const protocol in data.pairs) {
  for (const found of data.pairs[protocol]) {
    const cells = found[0].map(position => data.cells[protocol][position]);
    cells[0].place.pairs[protocol] = found;
    for (const cell of cells.slice(0, found[2])) cell.best = true;
  }
}

// Controls whose values are kept in the address, so that a view can be shared.
const CONTROLS = ["q", "task", "data", "protocol", "sort", "all", "axis", "setting", "place", "baseline"];
const valueOf = id => byId(id).type === "checkbox" ? (byId(id).checked ? "1" : "") : byId(id).value;

function cellsNow() {
  return data.cells[byId("protocol").value];
}
function chosenCells() {
  const words = byId("q").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [task, group, all] = [byId("task").value, byId("data").value, byId("all").checked];
  return cellsNow().filter(cell =>
    (all || cell.place.first) && (!task || cell.place.task === task) && (!group || cell.place.group === group) &&
    words.every(word => cell.words.includes(word)));
}
function groupBy(items, key) {
  const groups = new Map();
  for (const item of items) {
    const name = key(item);
    groups.has(name) ? groups.get(name).push(item) : groups.set(name, [item]);
  }
  return groups;
}
const placesOf = cells => data.places.filter(place => cells.some(cell => cell.place === place));
const byScore = (a, b) => (b.mean ?? -Infinity) - (a.mean ?? -Infinity);

// Pairs of systems of one column: positions of cells, the best first, and all pairs of them.
function paired(cell, base) {
  const [positions, found] = cell.place.pairs[byId("protocol").value];
  const [i, j] = [positions.indexOf(cell.position), positions.indexOf(base.position)];
  if (i < 0 || j < 0 || i === j) return null;
  const [first, second] = [Math.min(i, j), Math.max(i, j)];
  const pair = found[first * positions.length - first * (first + 1) / 2 + second - first - 1];
  if (!pair) return null;
  const [difference, low, high, p, floor, n, won] = pair;
  return i < j ? { difference, low, high, p, floor, n, won }
    : { difference: -difference, low: high === null ? null : -high, high: low === null ? null : -low, p, floor, n, won: n - won };
}

function decimals(value, digits) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
const short = value => Math.abs(value) >= 1e6 ? `${+(value / 1e6).toPrecision(3)}M` : Math.abs(value) >= 1e3 ? `${+(value / 1e3).toPrecision(3)}k` : `${+value.toPrecision(3)}`;
const interval = (low, high, digits = 1) => low === null ? "none (one seed)" : `${decimals(low, digits)} to ${decimals(high, digits)}`;
const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  for (const part of [content].flat()) if (part !== undefined && part !== null) made.append(part);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined && value !== null) made.setAttribute(name, value);
  return made;
}
// The first rows, and a button for the others: ten thousand rows at once would freeze a browser.
function listed(rows, first, show, columns) {
  const body = element("tbody"), more = element("tbody");
  const add = (from, to) => body.append(...rows.slice(from, to).map(show));
  let shown = first;
  const button = element("button", undefined, { type: "button" });
  const name = () => button.textContent = `Show ${Math.min(first, rows.length - shown)} more of ${rows.length.toLocaleString("en")}`;
  button.addEventListener("click", () => {
    add(shown, shown + first);
    shown += first;
    shown >= rows.length ? more.remove() : name();
  });
  add(0, first);
  if (rows.length > first) {
    name();
    more.append(element("tr", element("td", button, { colspan: columns })));
    return [body, more];
  }
  return [body];
}
const nameHead = name => element("th", element("span", name, { class: "name" }), { scope: "row" });
function table(heads, bodies) {
  const head = element("tr", heads.map(([name, kind]) => element("th", name, { scope: "col", class: kind })));
  return element("table", [element("thead", head), ...bodies]);
}
