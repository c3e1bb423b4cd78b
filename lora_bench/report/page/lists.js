// Pairs, published numbers, runs, and the details of one score.
const FIRST_ROWS = 50;

function pairs(cells) {
  const places = placesOf(cells.filter(cell => cell.n));
  options("place", places.map(place => [String(place.position), titleOf(place)]));
  const place = data.places[+byId("place").value], ranked = place?.pairs[byId("protocol").value]?.[0] ?? [];
  const all = cells.filter(cell => cell.place === place && cell.n).sort(byScore), here = all.filter(cell => ranked.includes(cell.position));
  options("baseline", here.map(cell => [cell.system, cell.system]));
  const base = here.find(cell => cell.system === byId("baseline").value);
  const found = here.filter(cell => cell !== base).map(cell => ({ cell, pair: paired(cell, base) })).filter(({ pair }) => pair).sort((a, b) => b.pair.difference - a.pair.difference);
  byId("pair-list").replaceChildren();
  if (!found.length) return byId("pair-list").append(element("p", "No other system shares a seed with this one."));
  const values = found.flatMap(({ pair }) => finite([pair.difference, pair.low, pair.high, 0]));
  const x = scale(values, 4, 176);
  const rows = listed(found, FIRST_ROWS, ({ cell, pair }) => pairRow(cell, pair, x), 7);
  byId("pair-list").append(table([["system"], ["difference", "number"], ["95 % interval", "number"], ["p (least)", "number"], ["better in", "number"], ["picture"]], rows));
  if (all.length > here.length) byId("pair-list").append(element("p", `The best ${here.length} of ${counted(all.length, "system")} are compared.`, { class: "note" }));
}
function pairRow(cell, pair, x) {
  const color = pair.low > 0 ? "var(--s2)" : pair.high < 0 && pair.high !== null ? "var(--s1)" : "var(--muted)";
  const drawing = svg("svg", { viewBox: "0 0 180 16", "aria-hidden": "true", style: "width: 180px" });
  drawing.append(svg("path", { class: "zero", d: `M${x(0)},0V16` }));
  if (pair.low !== null) drawing.append(svg("path", { d: `M${x(pair.low)},8H${x(pair.high)}`, style: `stroke: ${color}; stroke-width: 2` }));
  drawing.append(svg("circle", { cx: x(pair.difference), cy: 8, r: 3.5, style: `fill: ${color}` }));
  const sign = pair.difference > 0 ? "+" : "";
  return element("tr", [
    nameHead(cell.system), element("td", sign + decimals(pair.difference, 2), { class: "number" }),
    element("td", interval(pair.low, pair.high, 2), { class: "number" }), element("td", `${decimals(pair.p, 3)} (${decimals(pair.floor, 3)})`, { class: "number" }),
    element("td", `${pair.won} of ${pair.n}`, { class: "number" }), element("td", drawing),
  ]);
}
function published(cells) {
  const shown = new Set(cells), all = cellsNow();
  const found = data.published[byId("protocol").value].filter(([position]) => shown.has(all[position]));
  found.sort((a, b) => (text(a[4]) !== "") - (text(b[4]) !== ""));
  const rows = listed(found, FIRST_ROWS, ([position, value, spread, source, reasons]) => {
    const cell = all[position];
    return element("tr", [
      nameHead(cell.system), element("td", cell.place.title), element("td", scoreButton(cell), { class: "number score" }),
      element("td", decimals(value, 1) + (spread === null ? "" : ` ± ${decimals(spread, 1)}`), { class: "number" }),
      element("td", text(reasons) ? `no, because of ${text(reasons)}` : `yes, ${decimals(cell.mean - value, 1)} points`), element("td", text(source)),
    ]);
  }, 6);
  byId("published-list").replaceChildren(found.length
    ? table([["system"], ["score"], ["ours", "number"], ["published", "number"], ["comparable"], ["source"]], rows)
    : element("p", data.nothing_published));
}
function runs(cells) {
  const found = [...new Set(cells.flatMap(cell => cell.trial[TRIAL_RUNS]))].sort((a, b) => a - b).map(position => data.runs[position]);
  const rows = listed(found, FIRST_ROWS, run => element("tr", [
    nameHead(run[KEY]), element("td", text(run[STATUS]) + (run[ERROR] ? `: ${run[ERROR]}` : "")), element("td", run[STARTED].slice(0, 16), { class: "date" }),
    element("td", text(run[COMMIT]).slice(0, 10)), element("td", element("code", run[COMMAND])),
  ]), 5);
  byId("run-list").replaceChildren(table([["run"], ["status"], ["started (UTC)"], ["commit"], ["command"]], rows));
}
// Everything behind one number: the settings of its place, its runs, their commands and commits.
function openDetails(cell) {
  hideTip();
  byId("details-title").textContent = `${cell.system}: ${cell.place.title}`;
  const facts = [["score", cell.n ? `${decimals(cell.mean, 2)}${cell.sd === null ? "" : ` ± ${decimals(cell.sd, 2)}`}` : "none: every run failed"], ["95 % interval", interval(cell.low, cell.high, 2)], ["runs", `${counted(cell.n, "seed")}, ${cell.failed} failed`], ["where", cell.place.group]];
  const body = byId("details-body");
  body.replaceChildren(list(facts));
  for (const position of cell.trial[TRIAL_RUNS]) {
    const run = data.runs[position], score = cell.scores[run[SEED]];
    body.append(element("h3", run[KEY]), list([
      ["score", score === undefined ? `${text(run[STATUS])}${run[ERROR] ? `: ${run[ERROR]}` : ""}` : decimals(score, 2)], ["command", element("code", run[COMMAND])],
      ["commit", text(run[COMMIT]) || "unknown"], ["date", run[STARTED]], ["data", text(run[SPLITS])], ["versions", text(run[VERSIONS])],
    ]));
  }
  byId("details").showModal();
  byId("details-title").focus();
}
function list(facts) {
  return element("dl", facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}
// Replace the options of a select; keep its value if it is still one of them.
function options(id, choices) {
  const select = byId(id), before = select.dataset.wanted ?? select.value;
  select.replaceChildren(...choices.map(([value, name]) => new Option(name, value)));
  if (choices.some(([value]) => value === before)) select.value = before;
}
