// The pictures: by cost, over a swept setting, over epochs.
const MAX_PICTURES = 12;

function pictures(cells) {
  const places = [...groupBy(cells.filter(cell => cell.place.first && cell.n), cell => cell.place)].sort((a, b) => a[0].position - b[0].position);
  fill("by-cost", places.map(([place, found]) => byCost(place, found)));
  fill("over", overSetting(cells));
  fill("epochs", places.map(([place, found]) => overEpochs(place, found, 2)));
  fill("losses", places.map(([place, found]) => overEpochs(place, found, 1)));
}
function fill(id, drawn) {
  const found = drawn.filter(Boolean), more = found.length - MAX_PICTURES;
  byId(id).replaceChildren(...found.slice(0, MAX_PICTURES));
  if (!found.length) byId(id).append(element("p", "Nothing to draw: a picture needs two points.", { class: "note" }));
  if (more > 0) byId(id).append(element("p", `${more} more: choose a task.`, { class: "note" }));
}
const titleOf = place => `${place.title}, ${place.group}`;
function byCost(place, cells) {
  const column = +byId("axis").value;
  const points = cells.map(cell => ({ name: cell.system, x: cell.trial[TRIAL_COSTS][column] ?? null, y: cell.mean, low: cell.low, high: cell.high })).filter(point => point.x !== null);
  const above = points.filter(point => point.x > 0), levels = points.filter(point => point.x <= 0);
  return above.length > 1 ? paretoChart(titleOf(place), above, levels, { xLabel: byId("axis").selectedOptions[0].text }) : null;
}
function overSetting(cells) {
  const [name, lines] = data.sweeps[byId("protocol").value][byId("setting").value] ?? ["", []];
  const shown = new Set(cells), all = cellsNow(), found = [];
  for (const [line, condition, points] of lines) {
    const kept = points.map(([position, x]) => ({ cell: all[position], x })).filter(point => shown.has(point.cell));
    if (kept.length < 2) continue;
    const place = kept[0].cell.place, title = [place.task, place.metric, text(condition), place.group].filter(Boolean).join(", ");
    const drawn = kept.map(({ cell, x }) => ({ x, y: cell.mean, low: cell.low, high: cell.high })).sort((a, b) => a.x - b.x);
    found.push({ title, name: text(line), points: drawn });
  }
  return [...groupBy(found, line => line.title)].map(([title, group]) => {
    const values = [...new Set(group.flatMap(line => line.points.map(point => point.x)))].sort((a, b) => a - b);
    const log = values[0] > 0 && values.at(-1) / values[0] >= 8;
    const best = line => Math.max(...line.points.map(point => point.y));
    group.sort((a, b) => best(b) - best(a));
    return lineChart(title, group, { log, ticks: values.length <= 10 ? values : undefined, xLabel: name });
  });
}
function overEpochs(place, cells, column) {
  const lines = [...cells].sort(byScore).map(cell => {
    const curve = cell.trial[TRIAL_CURVE], band = column === 2 && cell.n > 1;
    const points = curve[0].map((x, i) => ({ x, y: curve[column][i], low: band ? curve[3][i] : null, high: band ? curve[4][i] : null }));
    return { name: cell.system, points: points.filter(point => point.y !== null) };
  }).filter(line => line.points.length > 1);
  return lines.length ? lineChart(titleOf(place), lines, { xLabel: "epoch", whole: true }) : null;
}
