// From the address to the controls, and from the controls to what is shown.
function render() {
  const cells = chosenCells();
  const systems = new Set(cells.map(cell => cell.system)).size;
  byId("count").textContent = `${counted(systems, "system")}, ${counted(placesOf(cells).length, "column")}`;
  const sweeps = data.sweeps[byId("protocol").value];
  options("setting", sweeps.map(([, , title], i) => [String(i), title]));
  for (const id of ["over-title", "over"]) byId(id).hidden = !sweeps.length;
  matrices(cells);
  pictures(cells);
  pairs(cells);
  published(cells);
  runs(cells);
}
function remember() {
  const state = new URLSearchParams(CONTROLS.map(id => [id, valueOf(id)]).filter(([, value]) => value));
  history.replaceState(null, "", `#?${state}`);
}
function restore() {
  const state = new URLSearchParams(location.hash.replace(/^#\??/, ""));
  for (const id of CONTROLS) {
    if (!state.has(id)) continue;
    if (id === "all") byId(id).checked = true;
    else if (byId(id).tagName === "SELECT" && !byId(id).options.length) byId(id).dataset.wanted = state.get(id);
    else byId(id).value = state.get(id);
  }
}
const distinct = values => [...new Set(values)].sort().map(value => [value, value]);
options("task", [["", "all"], ...distinct(data.places.map(place => place.task))]);
options("data", [["", "all"], ...distinct(data.places.map(place => place.group))]);
restore();
let waiting;
for (const id of CONTROLS) byId(id).addEventListener("input", () => {
  delete byId(id).dataset.wanted;
  if (id === "sort") order = { column: null, direction: "descending" };
  clearTimeout(waiting);
  waiting = setTimeout(() => (render(), remember()), id === "q" ? 150 : 0);
});
for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", event => {
  event.preventDefault(); // the address keeps the filters
  const section = document.querySelector(link.getAttribute("href"));
  section.scrollIntoView();
  section.querySelector("h2").setAttribute("tabindex", "-1");
  section.querySelector("h2").focus();
});
addEventListener("keydown", event => event.key === "Escape" && hideTip());
addEventListener("scroll", hideTip, { passive: true });
byId("filters").open = innerWidth > 700;
byId("about").textContent = data.about;
render();
document.documentElement.dataset.ready = "yes";
