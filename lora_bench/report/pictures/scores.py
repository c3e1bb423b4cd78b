"""Lines and points of scores: over swept settings, over epochs, by the number of parameters."""

import textwrap
from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ...errors import counted
from ..cells import IDS, median_sizes
from ..sweeps import Sweep, sweeps
from .style import (
    COLORS,
    LABEL_POINTS,
    TITLE_LETTERS,
    TITLE_LINES,
    WIDTH,
    Named,
    best_lines,
    by_place,
    end_with_data,
    interval_note,
    label_ends,
    plain,
    set_title,
    short_names,
    slug,
    styles,
)  # fmt: skip

Value = Callable[[dict], float | None]  # value of an epoch
DECADE = 10
MAX_NAMES = 10  # points with a name
ROOM = 0.2  # share of the height for names above and below the points
# lines are paler where they cross a name
BEHIND_NAMES = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.3}
BESIDE = 1.12  # offset of a name on the logarithmic axis
ITERATIONS = 500  # for moving names apart; a time limit would make pictures differ


def score_over_settings(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Score over each swept setting, such as ``train.lr``: a line for each system."""
    for sweep in sweeps(scored):
        yield from score_over(sweep)


def score_over(sweep: Sweep, axis: str | None = None) -> Named:
    """Score over one setting, a picture for each place.

    Args:
        sweep: the sweep, with its cells.
        axis: ``log`` or ``linear``; None to choose by the values.
    """
    for stem, place in by_place(sweep.points):
        shown, note = best_lines(place, "line")
        figure, axes = plt.subplots(figsize=(WIDTH, 2.4))
        ends, names = [], short_names(shown.line)
        lines = shown.groupby("line", sort=False)
        for (name, line), style in zip(lines, styles(), strict=False):
            line = line.sort_values("x", kind="stable")
            axes.plot(line.x, line["mean"], **style)
            low, high = line.low.astype(float), line.high.astype(float)
            axes.fill_between(line.x, low, high, color=style["color"], alpha=0.15, linewidth=0)
            ends.append((line.x.iloc[-1], line["mean"].iloc[-1], names[name], style["color"]))
        _scale(axes, sorted(set(shown.x)), axis)
        metric = plain(f"{place.metric.iloc[0]}, % (mean{interval_note(shown)})")
        axes.set(xlabel=plain(sweep.name), ylabel=metric)
        set_title(figure, place, sweep.title, note)
        _finish(figure, axes, ends)
        yield f"over_{slug(sweep.name)}_{stem}", figure


def _finish(figure: Figure, axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    end_with_data(axes)
    label_ends(figure, axes, ends)


def _scale(axes: Axes, values: list[float], axis: str | None = None) -> None:
    """A tick at each value; logarithmic for powers of two and for more than a decade."""
    powers = all(v >= 1 and np.log2(v).is_integer() for v in values)
    suits = powers or (values[0] > 0 and values[-1] / values[0] >= DECADE)
    if axis == "log" or (axis is None and suits):
        axes.set_xscale("log", base=2 if powers else 10)
    axes.set_xticks(values, [f"{v:g}" for v in values])
    axes.set_xticks([], minor=True)


def over_epochs(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Training loss and score after each epoch: mean and range of the seeds.

    The line of a system ends where the first of its runs ended (``train.patience``): a mean over
    the others would be one over other seeds.
    """
    done = runs.loc[runs.status == "ok", [*IDS, "epochs"]]
    for stem, place in by_place(done.merge(scored, on=IDS)):
        if place.epochs.map(len).max() < 2:
            continue
        shown, note = best_lines(place, "label")
        figure, panels = plt.subplots(2, 1, figsize=(WIDTH, 3.8), sharex=True)
        metric, names = str(place.metric.iloc[0]), short_names(shown.label)
        values: tuple[Value, Value] = (_loss, partial(_percent, metric))
        for axes, value in zip(panels, values, strict=True):
            ends = []
            lines = shown.groupby("label", sort=False)
            for (name, group), style in zip(lines, styles(), strict=False):
                band = _by_epoch(group, value)
                if band.empty:
                    continue
                every = max(1, len(band) // 8)  # too many markers would hide the line
                axes.plot(band.index, band["mean"], markevery=every, **style)
                axes.fill_between(
                    band.index, band["min"], band["max"], color=style["color"], alpha=0.15,
                    linewidth=0,
                )  # fmt: skip
                ends.append((band.index[-1], band["mean"].iloc[-1], names[name], style["color"]))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            _finish(figure, axes, ends)
        panels[0].set(ylabel="training loss")
        panels[1].set(xlabel="epoch", ylabel=f"{metric}, %")
        spread = "; mean and range of seeds" if place.n.max() > 1 else ""
        lengths = place.epochs.map(len).groupby(place.label).nunique()
        end = ", until the first of them ended" if lengths.max() > 1 else ""
        set_title(figure, place, f"training{spread}{end}", note)
        yield f"epochs_{stem}", figure


def _loss(epoch: dict) -> float | None:
    return epoch.get("loss")


def _percent(metric: str, epoch: dict) -> float | None:
    score = epoch["scores"].get(metric)
    return None if score is None else 100 * score


def _by_epoch(group: pd.DataFrame, value: Value) -> pd.DataFrame:
    """Mean, min and max over seeds, indexed by epoch; epochs that a seed lacks are left out."""
    points = [(epoch["epoch"], value(epoch)) for epochs in group.epochs for epoch in epochs]
    frame = pd.DataFrame(points, columns=["epoch", "value"]).dropna().astype(float)
    found = frame.groupby("epoch")["value"].agg(["mean", "min", "max", "count"])
    return found[found["count"] == len(group)]


def pareto(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Score by trained parameters without the head, and the Pareto front.

    A system that trains only the head cannot be on a logarithmic axis and is shown as a level.
    """
    merged = scored.merge(median_sizes(runs).rename("x").reset_index(), on=IDS)
    for stem, place in by_place(merged.dropna(subset="x")):
        points, levels = place[place.x > 0], place[place.x <= 0]
        if points.label.nunique() < 2:
            continue
        figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
        axes.set_xscale("log")
        # 1M, not 10^6: names are plain text, and the default formatter writes math text
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        x, y = (points[name].to_numpy(dtype=float) for name in ("x", "mean"))
        front = _front(x, y)
        axes.step(x[front], y[front], where="post", color="#888888", linestyle="--", zorder=1)
        _points(axes, points, front)
        metric = f"{place.metric.iloc[0]}, % (mean{interval_note(points)})"
        axes.set(xlabel="trained parameters, without the head", ylabel=plain(metric))
        named, note = _named(points, front)
        set_title(figure, place, "score by size; dashed: Pareto front", note)
        axes.margins(x=0.05, y=ROOM)
        end_with_data(axes)
        _levels(axes, levels)
        figure.draw_without_rendering()
        _name_points(axes, named, (x, y))
        yield f"pareto_parameters_{stem}", figure


def _points(axes: Axes, points: pd.DataFrame, front: list[int]) -> None:
    """Points with their intervals; points on the front are filled."""
    for i, (_, cell) in enumerate(points.iterrows()):
        error = None
        if pd.notna(cell.low):
            error = [[cell["mean"] - cell.low], [cell.high - cell["mean"]]]
        on_front = i in front
        axes.errorbar(
            cell.x, cell["mean"], yerr=error, color=COLORS[0 if on_front else 1],
            marker="o" if on_front else "s", markerfacecolor=None if on_front else "white",
            elinewidth=0.7, zorder=3 if on_front else 2,
        )  # fmt: skip


def _named(points: pd.DataFrame, front: list[int]) -> tuple[pd.DataFrame, str]:
    """The points that get a name, the front first, and a note on the others."""
    order = points.iloc[front]["mean"].sort_values(ascending=False).index
    rest = points["mean"].drop(order).sort_values(ascending=False).index
    chosen = points.loc[[*order, *rest][:MAX_NAMES]]
    more = len(points) - len(chosen)
    return chosen, f"without a name, but in the tables: {counted(more, 'point')}" if more else ""


def _levels(axes: Axes, levels: pd.DataFrame) -> None:
    """Levels with their names; a level outside the points' range becomes a number at the edge."""
    bottom, top = axes.get_ylim()
    across = axes.get_yaxis_transform()
    names = short_names(levels.label)
    for side, at, text in (("below", 0.02, "bottom"), ("above", 0.98, "top")):
        beyond = levels[levels["mean"] < bottom if side == "below" else levels["mean"] > top]
        listed = [
            f"{names[label]} {y:.1f}" for label, y in zip(beyond.label, beyond["mean"], strict=True)
        ]
        names_beyond = textwrap.fill(
            f"{side}: {', '.join(listed)}" if listed else "", TITLE_LETTERS - 14,
            max_lines=TITLE_LINES, placeholder=" … in the tables",
        )  # fmt: skip
        axes.text(
            0.98, at, names_beyond, ha="right", va=text,
            transform=axes.transAxes, fontsize=LABEL_POINTS, color="#555555", in_layout=False,
        )  # fmt: skip
    for _, level in levels[levels["mean"].between(bottom, top)].iterrows():
        axes.axhline(level["mean"], color="#888888", linestyle=":", linewidth=0.8)
        axes.text(
            0.99, level["mean"], names[level.label], transform=across, ha="right", va="bottom",
            fontsize=LABEL_POINTS, color="#555555", in_layout=False,
        )  # fmt: skip


def _name_points(
    axes: Axes, points: pd.DataFrame, all_points: tuple[np.ndarray, np.ndarray]
) -> None:
    """Names beside points, moved apart."""
    names = short_names(points.label)
    texts = [
        axes.text(
            BESIDE * cell.x,
            cell["mean"],
            names[cell.label],
            fontsize=LABEL_POINTS,
            in_layout=False,
            bbox=BEHIND_NAMES,
        )
        for _, cell in points.iterrows()
    ]
    adjust_text(
        texts, *all_points, ax=axes, target_x=points.x.tolist(),
        target_y=points["mean"].tolist(), iter_lim=ITERATIONS, expand=(1.1, 1.3),
        force_text=(0.3, 0.6),
        arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.5},
    )  # fmt: skip


def _front(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Positions of the points for which no other one is both smaller (or equal) and better."""
    front, best = [], -np.inf
    for i in np.lexsort((-y, x)):
        if y[i] > best:
            front.append(int(i))
            best = y[i]
    return front
