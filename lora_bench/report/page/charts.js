// Drawing: axes, lines with bands, points with intervals and names, all in one inline SVG.
const [WIDTH, HEIGHT] = [360, 230];
const MAX_LINES = 8, LINE_HEIGHT = 12, MAX_LETTERS = 20;
const DASHES = ["", "6 3", "6 2 1 2", "1 3"];
const MARKERS = [
  "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0", "M-2.7,-2.7h5.4v5.4h-5.4z", "M0,-3.6L3.6,0L0,3.6L-3.6,0z", "M-3.2,2.6L0,-3.2L3.2,2.6z",
  "M-3.2,-2.6L0,3.2L3.2,-2.6z", "M-1,-3.2h2v2.2h2.2v2h-2.2v2.2h-2v-2.2h-2.2v-2h2.2z", "M-2.8,-2.8L2.8,2.8M-2.8,2.8L2.8,-2.8", "M-3.4,0h6.8M0,-3.4v6.8",
];

function svg(tag, attributes = {}, content) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined && value !== null) made.setAttribute(name, value);
  if (content !== undefined) made.append(content);
  return made;
}
function cut(name, most = MAX_LETTERS) {
  return name.length > most ? `${name.slice(0, most / 2)}…${name.slice(1 - most / 2)}` : name;
}
function extent(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low === high ? [low - 1, high + 1] : [low, high];
}
function niceTicks([low, high], count = 4) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= raw), ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(+(i * step).toPrecision(12));
  return ticks;
}
// A scale from values to positions; logarithmic if requested and possible for all values.
function scale(values, from, to, log) {
  const of = log ? Math.log : value => value;
  const [low, high] = extent(values.map(of));
  const at = value => from + (of(value) - low) / (high - low) * (to - from);
  return Object.assign(at, { range: [log ? Math.exp(low) : low, log ? Math.exp(high) : high], log });
}
function logTicks([low, high]) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1e-9; power++)
    for (const factor of high / low > 30 ? [1] : [1, 2, 5]) ticks.push(factor * 10 ** power);
  return ticks.filter(tick => tick >= low * .999 && tick <= high * 1.001);
}
// Ascending positions moved apart to LINE_HEIGHT, within top and bottom if they fit.
function apart(values, top, bottom) {
  const found = [];
  for (const value of values) found.push(Math.max(value, found.length ? found.at(-1) + LINE_HEIGHT : top));
  let limit = Math.max(bottom, top + LINE_HEIGHT * (found.length - 1));
  for (let i = found.length - 1; i >= 0; i--) {
    found[i] = Math.min(found[i], limit);
    limit = found[i] - LINE_HEIGHT;
  }
  return found;
}
// What all pictures share: axes that end with the data, a grid below, ticks, labels.
function frame(title, summary, xs, ys, options) {
  const box = { left: 44, right: WIDTH - (options.right ?? 12), top: 10, bottom: HEIGHT - 36 };
  const x = scale(xs, box.left + 4, box.right - 4, options.log), y = scale(ys, box.bottom - 4, box.top + 4);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${summary}` });
  const xTicks = (options.ticks ?? (options.log ? logTicks(x.range) : niceTicks(x.range))).filter(tick => !options.whole || Number.isInteger(tick));
  let free = -Infinity;
  for (const tick of niceTicks(y.range)) {
    drawing.append(svg("path", { class: "grid", d: `M${box.left},${y(tick)}H${box.right}` }));
    drawing.append(svg("text", { x: box.left - 5, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of xTicks) {
    drawing.append(svg("path", { class: "grid", d: `M${x(tick)},${box.top}V${box.bottom}` }));
    const name = short(tick), half = name.length * 3.4;
    if (x(tick) - half < free) continue;
    free = x(tick) + half + 4;
    drawing.append(svg("text", { x: x(tick), y: box.bottom + 14, "text-anchor": "middle" }, name));
  }
  drawing.append(svg("path", { class: "axis", d: `M${x(x.range[0])},${box.bottom}H${x(x.range[1])}M${box.left},${y(y.range[0])}V${y(y.range[1])}` }));
  drawing.append(svg("text", { x: (box.left + box.right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, options.xLabel));
  return { drawing, x, y, box };
}
const finite = values => values.filter(value => value !== null && value !== undefined);
// Lines, the best first: name and points with x, y, low and high; MAX_LINES are drawn.
function lineChart(title, lines, options) {
  const shown = lines.slice(0, MAX_LINES);
  const points = shown.flatMap(line => line.points);
  const left = lines.length > shown.length ? ` (the best ${shown.length} of ${lines.length})` : "";
  const said = shown.map(line => `${line.name}: ${short(line.points.at(-1).y)} at ${short(line.points.at(-1).x)}`).join("; ");
  const { drawing, x, y, box } = frame(title, said, points.map(point => point.x), finite(points.flatMap(point => [point.y, point.low, point.high])), { right: 130, ...options });
  shown.forEach((line, i) => drawLine(drawing, line.points, i, x, y));
  const ends = shown.map((line, i) => ({ name: line.name, color: `var(--s${i})`, at: line.points.at(-1) })).sort((a, b) => y(a.at.y) - y(b.at.y));
  apart(ends.map(end => y(end.at.y)), box.top + 4, box.bottom).forEach((height, i) => {
    const end = ends[i];
    drawing.append(svg("path", { d: `M${x(end.at.x) + 4},${y(end.at.y)}L${box.right + 4},${height}`, style: `stroke: ${end.color}; stroke-width: .8; fill: none` }));
    drawing.append(svg("text", { x: box.right + 7, y: height + 4 }, cut(end.name)));
  });
  return element("figure", [element("figcaption", title + left), drawing]);
}
function drawLine(drawing, points, i, x, y) {
  const style = `stroke: var(--s${i}); fill: none; stroke-width: 1.6`;
  for (const band of bands(points))
    drawing.append(svg("path", { d: `M${band.map(p => `${x(p.x)},${y(p.high)}`).join("L")}L${band.reverse().map(p => `${x(p.x)},${y(p.low)}`).join("L")}z`, style: `fill: var(--s${i}); opacity: .15` }));
  drawing.append(svg("path", { d: `M${points.map(p => `${x(p.x)},${y(p.y)}`).join("L")}`, style, "stroke-dasharray": DASHES[i % DASHES.length] || null }));
  const every = Math.ceil(points.length / 10);
  points.forEach((point, j) => {
    if ((points.length - 1 - j) % every) return;
    const marker = svg("path", { d: MARKERS[i], transform: `translate(${x(point.x)},${y(point.y)})`, style: `stroke: var(--s${i}); fill: var(--s${i})` });
    marker.append(svg("title", {}, `${short(point.x)}: ${decimals(point.y, 2)}${point.low === null || point.low === undefined ? "" : `, ${interval(point.low, point.high, 2)}`}`));
    drawing.append(marker);
  });
}
// Stretches of neighboring points with an interval.
function bands(points) {
  const found = [[]];
  for (const point of points) point.low === null || point.low === undefined ? found.push([]) : found.at(-1).push(point);
  return found.filter(band => band.length > 1);
}
// Points with name, x, y, low and high; points on the Pareto front are filled and named.
function paretoChart(title, points, levels, options) {
  const ordered = [...points].sort((a, b) => a.x - b.x || b.y - a.y);
  let best = -Infinity;
  for (const point of ordered) {
    point.front = point.y > best;
    best = Math.max(best, point.y);
  }
  const front = ordered.filter(point => point.front);
  const said = `Front: ${front.map(point => `${point.name} ${decimals(point.y, 1)}`).join("; ")}`;
  const ys = finite(points.flatMap(point => [point.y, point.low, point.high]));
  const { drawing, x, y, box } = frame(title, said, points.map(point => point.x), ys, { log: true, right: 60, ...options });
  drawLevels(drawing, levels, y, box);
  const steps = front.map((point, i) => `${i ? `H${x(point.x)}V` : `M${x(point.x)},`}${y(point.y)}`).join("");
  drawing.append(svg("path", { class: "level", d: `${steps}H${x(x.range[1])}` }));
  for (const point of ordered) {
    const look = `stroke: var(--s${point.front ? 0 : 1}); fill: ${point.front ? "var(--s0)" : "var(--page)"}`;
    if (point.low !== null) drawing.append(svg("path", { d: `M${x(point.x)},${y(point.low)}V${y(point.high)}`, style: look }));
    const marker = svg("path", { d: MARKERS[point.front ? 0 : 1], transform: `translate(${x(point.x)},${y(point.y)})`, style: look });
    marker.append(svg("title", {}, `${point.name}: ${decimals(point.y, 1)}, ${short(point.x)}`));
    drawing.append(marker);
  }
  namePoints(drawing, [...front.reverse(), ...ordered.filter(point => !point.front).sort((a, b) => b.y - a.y)], x, y, box);
  return element("figure", [element("figcaption", title), drawing]);
}
function drawLevels(drawing, levels, y, box) {
  for (const level of levels) {
    const inside = level.y >= y.range[0] && level.y <= y.range[1];
    const height = inside ? y(level.y) : level.y < y.range[0] ? box.bottom : box.top;
    if (inside) drawing.append(svg("path", { class: "level", d: `M${box.left},${height}H${box.right}` }));
    const where = inside ? "" : level.y < y.range[0] ? " (below)" : " (above)";
    drawing.append(svg("text", { x: WIDTH - 4, y: height - 3, "text-anchor": "end", style: "fill: var(--muted)" }, `${cut(level.name)} ${decimals(level.y, 1)}${where}`));
  }
}
// A name is placed beside its point if there is room; otherwise it is in the point's title.
function namePoints(drawing, points, x, y, box) {
  const taken = points.map(point => [x(point.x) - 4, y(point.y) - 4, x(point.x) + 4, y(point.y) + 4]);
  for (const point of points) {
    const name = cut(point.name), length = name.length * 5.6;
    for (const [dx, dy] of [[7, 4], [-7 - length, 4], [-length / 2, -8], [-length / 2, 17], [7, -6], [7, 14], [-7 - length, -6], [-7 - length, 14]]) {
      const [left, bottom] = [x(point.x) + dx, y(point.y) + dy], area = [left, bottom - 10, left + length, bottom + 1];
      if (left < box.left || area[2] > WIDTH || area[1] < 0 || bottom > box.bottom) continue;
      if (taken.some(other => other[0] < area[2] && area[0] < other[2] && other[1] < area[3] && area[1] < other[3])) continue;
      taken.push(area);
      drawing.append(svg("text", { x: left, y: bottom }, name));
      break;
    }
  }
}
