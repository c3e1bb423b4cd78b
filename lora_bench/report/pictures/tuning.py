"""Pictures of tuning: score over the learning rate, and expected best score over the budget."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ...errors import counted
from .style import (
    COLORS,
    LABEL_POINTS,
    WIDTH,
    Named,
    best_lines,
    by_place,
    end_with_data,
    label_ends,
    set_title,
    short_names,
    styles,
)  # fmt: skip

ACROSS = 3  # panels side by side
MAX_PANELS = 30  # panels that fit the height of a page
MAX_LETTERS = 50  # letters of the name above a panel
NAME_LINE = re.compile(".{1,17}(?:[ =,]|$)|.{1,18}")  # ends after a separator where it can
GRAY, CHOSEN = "#dddddd", COLORS[1]


def tuning_curves(curves: pd.DataFrame) -> Named:
    """Score over the learning rate: a panel for each system, the others in gray behind it.

    Args:
        curves: curves from ``load_curves``.
    """
    for stem, place in by_place(curves):
        shown = place[:MAX_PANELS]
        across = min(ACROSS, len(shown))
        down = -(-len(shown) // across)
        figure, panels = plt.subplots(
            down, across, figsize=(WIDTH, 0.9 + 0.95 * down), sharex=True, sharey=True,
            squeeze=False,
        )  # fmt: skip
        names = short_names(shown.label, MAX_LETTERS)
        for axes, (_, curve) in zip(panels.flat, shown.iterrows(), strict=False):
            _panel(axes, curve, shown)
            title = "\n".join([*NAME_LINE.findall(names[curve.label]), f"{curve.lr:g}"])
            axes.set_title(title, loc="left", fontsize=LABEL_POINTS)
        for axes in panels.flat[len(shown) :]:
            axes.remove()
        _decades(panels[0, 0], shown)
        figure.supxlabel("learning rate", fontsize=7)
        figure.supylabel(f"{place.metric.iloc[0]}, %", fontsize=7)
        every = [trial for trials in shown.trials for trial in trials]
        spread = ", mean and range of seeds" if any(len(t.scores) > 1 for t in every) else ""
        cross = "; cross: a run failed" if any(t.mean is None for t in every) else ""
        text = f"score over learning rate in tuning{spread}; diamond: chosen rate{cross}"
        note = f"{len(shown)} of {counted(len(place), 'system')}" if len(place) > len(shown) else ""
        set_title(figure, place, text, note)
        yield f"curves_{stem}", figure


def _panel(axes: Axes, curve: pd.Series, every: pd.DataFrame) -> None:
    """One curve in front of the others; a rate with a failed run is a cross at the bottom."""
    for trials in every.trials:
        axes.plot(*_points(trials), color=GRAY, linewidth=0.5, zorder=1)
    rates, means = _points(curve.trials)
    axes.plot(rates, means, color=COLORS[0], marker="o", markersize=2.2)
    known = [trial for trial in curve.trials if trial.mean is not None]
    low, high = ([100 * of(t.scores) for t in known] for of in (min, max))
    axes.fill_between(rates, low, high, color=COLORS[0], alpha=0.15, linewidth=0)
    at = rates.index(curve.lr)
    axes.plot(rates[at], means[at], "D", color=CHOSEN, markersize=4, zorder=4, clip_on=False)
    failed = [trial.lr for trial in curve.trials if trial.mean is None]
    axes.plot(failed, [0.04] * len(failed), "x", color=CHOSEN, transform=axes.get_xaxis_transform())


def _points(trials: list) -> tuple[list[float], list[float]]:
    """Rates and mean scores in percent, without rates with a failed run."""
    known = [trial for trial in trials if trial.mean is not None]
    return [trial.lr for trial in known], [100 * trial.mean for trial in known]


def _decades(axes: Axes, curves: pd.DataFrame) -> None:
    """A logarithmic axis with a tick at each power of ten, and a label at every second one."""
    rates = [trial.lr for trials in curves.trials for trial in trials]
    axes.set_xscale("log")
    powers = np.arange(np.ceil(np.log10(min(rates))), np.floor(np.log10(max(rates))) + 1)
    axes.xaxis.set_major_locator(FixedLocator((10.0**powers).tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    every = 2 if len(powers) > 2 else 1
    shown = set(powers[::-1][::every])
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:g}" if round(np.log10(x)) in shown else "")
    )


def expected_best_scores(curves: pd.DataFrame) -> Named:
    """Expected best score of k rates drawn at random from the grid, for each k.

    Args:
        curves: curves from ``load_curves``.
    """
    for stem, place in by_place(curves[curves.expected.map(len) > 1]):
        points = place.explode("expected").rename(columns={"expected": "mean"})
        points = points.assign(k=points.groupby("label").cumcount() + 1)
        shown, note = best_lines(points.astype({"mean": float}), "label")
        figure, axes = plt.subplots(figsize=(WIDTH, 2.4))
        ends, names = [], short_names(shown.label)
        lines = shown.groupby("label", sort=False)
        for (name, line), style in zip(lines, styles(), strict=False):
            axes.plot(line.k, line["mean"], **style)
            ends.append((line.k.iloc[-1], line["mean"].iloc[-1], names[name], style["color"]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(
            xlabel="learning rates tried, drawn from the grid",
            ylabel=f"expected best {place.metric.iloc[0]}, %",
        )
        set_title(figure, place, "expected best score by tuning budget", note)
        end_with_data(axes)
        label_ends(figure, axes, ends)
        yield f"budget_{stem}", figure
