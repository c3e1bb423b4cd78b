"""Pictures of the study: accuracy over epochs, one panel for each rank, and accuracy over ranks."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

FIRST = ("full", "low_rank", "autoencoder")  # the comparison that the study is about
FIGURE = {"svg.hashsalt": "low_rank", "svg.fonttype": "none", "savefig.bbox": "tight"}
PANELS = 4  # panels in a row
STYLE: list[Any] = ["petroff10", FIGURE]  # colors that color-blind readers can distinguish


def draw(runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the pictures as SVG.

    Args:
        runs: runs from ``findings.measured``.
        folder: folder of the pictures; it exists.

    Returns:
        The files.
    """
    layers = [*FIRST, *sorted(set(runs.method) - set(FIRST))]
    written = []
    with plt.style.context(STYLE):
        colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        color = dict(zip(layers, colors, strict=False))
        for name, picture in (("curves", _curves), ("ranks", _ranks)):
            figure = picture(runs, color)
            written.append(folder / f"{name}.svg")
            figure.savefig(written[-1], metadata={"Date": None})
            plt.close(figure)
    return written


def _curves(runs: pd.DataFrame, color: dict[str, str]) -> plt.Figure:
    """Accuracy over epochs for the three layers, with full rank in every panel."""
    ranks = sorted(set(runs["rank"]) - {0}) or [0]
    rows = -(-len(ranks) // PANELS)
    figure, panels = plt.subplots(
        rows, PANELS, figsize=(2.2 * PANELS, 2.2 * rows), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, rank in zip(panels.flat, ranks, strict=False):
        for layer in FIRST:
            group = runs[(runs.method == layer) & runs["rank"].isin([rank, 0])]
            if len(group):
                curves = np.array([[e["scores"]["accuracy"] for e in run] for run in group.epochs])
                _band(axes, np.arange(curves.shape[1]), 100 * curves.T, layer, color[layer])
        axes.set_title(f"rank {rank}", fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
    unused = panels.flat[len(ranks) :]
    for axes in unused:
        axes.axis("off")
    lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()}
    beside = unused[-1] if len(unused) else panels.flat[0]
    beside.legend(handles=[lines[layer] for layer in FIRST if layer in lines], loc="lower right")
    figure.supxlabel("epoch (0: before training)")
    figure.supylabel("accuracy, % (mean, 95 % interval)")
    return figure


def _ranks(runs: pd.DataFrame, color: dict[str, str]) -> plt.Figure:
    """Accuracy after the last epoch over ranks for every layer type; full rank as a level."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    ranks = sorted(set(runs["rank"]) - {0})
    for layer in color:
        group = runs[runs.method == layer].pivot(index="rank", columns="seed", values="last")
        if group.empty:
            continue
        values = group.to_numpy()  # (ranks, seeds)
        if layer == "full":
            ends = np.array([min(ranks, default=1), max(ranks, default=1)])
            _band(axes, ends, np.repeat(values, 2, 0), layer, color[layer])
        else:
            _band(axes, group.index.to_numpy(), values, layer, color[layer], marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="rank", ylabel="accuracy after the last epoch, % (mean, 95 % interval)")
    axes.legend()
    return figure


def _band(
    axes: Axes, x: np.ndarray, values: np.ndarray, label: str, color: str, **style: Any
) -> None:
    """A line of means with the 95 % interval (Student t).

    Args:
        axes: axes to draw on.
        x: (points,).
        values: (points, seeds); NaN where a seed is missing.
        label: label in the legend.
        color: color of line and band.
        style: style of the line.
    """
    mean, n = np.nanmean(values, axis=1), (~np.isnan(values)).sum(axis=1)
    axes.plot(x, mean, label=label, color=color, **style)
    if (n > 1).all():
        half = stats.sem(values, axis=1, nan_policy="omit") * stats.t.ppf(0.975, n - 1)
        axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)
