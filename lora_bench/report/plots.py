"""Pictures of cells and runs.

A solid light background reads on light and dark pages. Okabe and Ito's colours, which
colour-blind readers tell apart, and a marker for each line.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from .cells import IDS, median_costs
from .costs import MIB
from .sweeps import grids, sweeps
from .tables import common

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vP*X"
STYLE: dict[Any, Any] = {
    "figure.facecolor": "#fbfbf8", "axes.facecolor": "#fbfbf8", "axes.edgecolor": "#444444",
    "text.color": "#222222", "axes.labelcolor": "#222222", "xtick.color": "#222222",
    "ytick.color": "#222222", "axes.grid": True, "grid.color": "#dddddd",
    "axes.spines.top": False, "axes.spines.right": False, "font.size": 10,
    "svg.hashsalt": "lora-bench", "svg.fonttype": "none", "savefig.bbox": "tight",
    "legend.frameon": False, "axes.axisbelow": True, "text.parse_math": False,
}  # fmt: skip
WRITTEN = "pictures.txt"  # names of the files that draw() wrote, one a line
DECADE = 10
MOST_LETTERS = 80  # of a part of a file's name
Named = Iterator[tuple[str, Figure]]


def draw(cells: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Write every picture that these runs fill as SVG.

    Pictures of an earlier call that these runs do not fill are deleted; other files are not.

    Args:
        cells: from ``make_cells``.
        runs: behind the cells.
        folder: of the pictures; made where there is none.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scored = cells[cells["first"] & (cells.n > 0)]
    written = []
    with plt.rc_context(STYLE):
        for name, figure in (made for picture in PICTURES for made in picture(scored, runs)):
            written.append(folder / f"{name}.svg")
            figure.savefig(written[-1], metadata={"Date": None})
            plt.close(figure)
    names, index = [path.name for path in written], folder / WRITTEN
    before = index.read_text().split() if index.is_file() else []
    for stale in set(before) - set(names):
        (folder / Path(stale).name).unlink(missing_ok=True)
    index.write_text("".join(f"{name}\n" for name in sorted(names)))
    return written


def score_over_settings(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Score over each swept setting with the bootstrap interval, one picture for each task."""
    for sweep in sweeps(scored):
        for stem, place in _by_place(sweep.points):
            figure, axes = _axes(f"score over {sweep.name}", place, sweep.name)
            for (name, line), style in zip(
                place.groupby("line", sort=False), _styles(), strict=False
            ):
                axes.plot(line.x, line["mean"], label=name, **style)
                if line.low.notna().all():
                    low, high = line.low.astype(float), line.high.astype(float)
                    axes.fill_between(line.x, low, high, color=style["color"], alpha=0.2)
            _scale(axes, sorted(set(place.x)))
            _legend(axes, place.line.nunique())
            yield f"over_{_slug(sweep.name)}_{stem}", figure


def _scale(axes: Axes, values: list[float]) -> None:
    """A tick at each value; logarithmic for powers of two and for more than a decade."""
    powers = all(v >= 1 and np.log2(v).is_integer() for v in values)
    if powers or (values[0] > 0 and values[-1] / values[0] >= DECADE):
        axes.set_xscale("log", base=2 if powers else 10)
    axes.set_xticks(values, [f"{v:g}" for v in values])
    axes.set_xticks([], minor=True)


def pareto(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Score by trained parameters and by the saved file, with the Pareto front."""
    sizes = median_costs(runs, ["trained_parameters", "adapter_bytes"])
    merged = scored.merge(sizes.reset_index(), on=IDS)
    for stem, place in _by_place(merged):
        for column, unit, title, name in (
            ("trained_parameters", 1, "trained parameters, head included", "parameters"),
            ("adapter_bytes", MIB, "size of the saved adapter, MiB", "size"),
        ):
            shown = place.assign(x=place[column] / unit).dropna(subset="x")
            if shown.label.nunique() < 2:
                continue
            figure, axes = _axes(f"score by {title.split(',')[0]}", shown, title)
            axes.set_xscale("log")
            # 1M and not 10^6: names are plain text, so the default's mathematics is not read
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            for (_, cell), style in zip(shown.iterrows(), _styles(), strict=False):
                error = None
                if pd.notna(cell.low):
                    error = [[cell["mean"] - cell.low], [cell.high - cell["mean"]]]
                style = style | {"linestyle": "none", "label": cell.label, "capsize": 3}
                axes.errorbar(cell.x, cell["mean"], yerr=error, **style)
            x, y = shown.x.to_numpy(dtype=float), shown["mean"].to_numpy(dtype=float)
            front = _front(x, y)
            line = axes.step(x[front], y[front], where="post", label="Pareto front")
            plt.setp(line, color="#888888", linestyle="--")
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
            yield f"pareto_{name}_{stem}", figure


def over_epochs(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Training loss and score after each epoch, mean over seeds, one picture for each task."""
    done = runs.loc[runs.status == "ok", [*IDS, "epochs"]]
    for stem, place in _by_place(done.merge(scored, on=IDS)):
        if place.epochs.map(len).max() < 2:
            continue
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(10, 4), sharex=True, layout="constrained"
        )
        task, metric = place.task.iloc[0], place.metric.iloc[0]
        for (name, group), style in zip(
            place.groupby("label", sort=False), _styles(), strict=False
        ):
            losses = _mean_by_epoch(group, lambda epoch: epoch["loss"])
            scores = _mean_by_epoch(group, partial(_percent, metric))
            left.plot(losses.index, losses, label=name, **style)
            right.plot(scores.index, scores, label=name, **style)
        loss = "training loss (mean over examples)"
        left.set(xlabel="epoch", ylabel=loss, title=f"{task}: loss")
        right.set(xlabel="epoch", ylabel=f"{metric}, %", title=f"{task}: score")
        for axes in (left, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
        )
        yield f"epochs_{stem}", figure


def heat_map(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Rank by alpha, where both were swept."""
    for line, group in grids(scored):
        table = group.pivot(index="alpha", columns="rank", values="mean")
        table = table.sort_index(ascending=False)
        size = 1.2 + 0.8 * len(table.columns), 1.2 + 0.6 * len(table)
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        values = table.to_numpy(dtype=float)
        image = axes.imshow(values, cmap="cividis", aspect="auto")
        axes.grid(False)
        axes.set_xticks(range(len(table.columns)), [str(r) for r in table.columns])
        axes.set_yticks(range(len(table)), [f"{a:g}" for a in table.index])
        title = f"{group.place.iloc[0]}, %: {line}"
        axes.set(xlabel="rank", ylabel="alpha", title=title)
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (i, j), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.1f}"
            colour = "white" if value < middle else "black"
            axes.text(j, i, text, ha="center", va="center", color=colour)
        figure.colorbar(image)
        (stem,) = [stem for stem, _ in _by_place(group)]
        yield f"heat_{stem}_{_slug(line)}", figure


def costs(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Training time and peak memory of each system, median over seeds."""
    medians = median_costs(runs, ["train_seconds", "peak_memory_bytes"])
    merged = scored.merge(medians.reset_index(), on=IDS)
    for stem, place in _by_place(merged):
        place = place.sort_values("train_seconds", ascending=False)
        figure, axes = plt.subplots(
            1, 2, figsize=(10, 1 + 0.3 * len(place)), sharey=True, layout="constrained"
        )
        axes[0].barh(place.label, place.train_seconds, color=COLOURS[0])
        axes[1].barh(place.label, place.peak_memory_bytes / MIB, color=COLOURS[4])
        title = f"{_title(place)} ({common(place)}): time"
        axes[0].set(xlabel="training time, s", title=title)
        axes[1].set(xlabel="peak memory of the process, MiB", title="memory")
        yield f"costs_{stem}", figure


PICTURES: tuple[Callable[[pd.DataFrame, pd.DataFrame], Named], ...] = (
    score_over_settings,
    pareto,
    over_epochs,
    heat_map,
    costs,
)


def _by_place(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each task, model and data, with a name for files."""
    for _, place in frame.groupby("where_id", sort=False):
        condition = place.condition.iloc[0]
        yield _slug(f"{place.task.iloc[0]}_{condition}" if condition else place.task.iloc[0]), place


def _slug(text: str) -> str:
    """A name for a file; a long one is cut and gets a hash."""
    slug = re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")
    if len(slug) <= MOST_LETTERS:
        return slug
    return f"{slug[:MOST_LETTERS]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _styles() -> Iterator[dict[str, Any]]:
    """Colour, marker and line style, different for as many lines as possible."""
    for turn, line in itertools.cycle(enumerate(("-", "--", ":"))):
        for colour, marker in zip(COLOURS, MARKERS[turn:] + MARKERS[:turn], strict=True):
            yield {"color": colour, "marker": marker, "linestyle": line}


def _title(place: pd.DataFrame) -> str:
    condition = place.condition.iloc[0]
    return place.task.iloc[0] + (f", {condition}" if condition else "")


def _axes(title: str, place: pd.DataFrame, x: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    interval = " (mean, 95 % bootstrap interval)" if place.low.notna().any() else ""
    axes.set(xlabel=x, ylabel=f"{place.metric.iloc[0]}, %{interval}")
    axes.set_title(f"{_title(place)}: {title} ({common(place)})", fontsize=10)
    return figure, axes


def _legend(axes: Axes, lines: int) -> None:
    """Inside the axes for a few lines, to their right for more."""
    outside = {"fontsize": 8, "loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axes.legend(**({} if lines <= 3 else outside))


def _front(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Positions of the points that no other one beats in both: smaller (or equal) and better."""
    front, best = [], -np.inf
    for i in np.lexsort((-y, x)):
        if y[i] > best:
            front.append(int(i))
            best = y[i]
    return front


def _mean_by_epoch(group: pd.DataFrame, value: Callable[[dict], float]) -> pd.Series:
    points = [(epoch["epoch"], value(epoch)) for epochs in group.epochs for epoch in epochs]
    return pd.DataFrame(points, columns=["epoch", "value"]).groupby("epoch")["value"].mean()


def _percent(metric: str, epoch: dict) -> float:
    return 100 * epoch["scores"][metric]
