"""Pictures of systems side by side: rank by alpha, pairwise wins, and bars of costs."""

import itertools
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ...errors import counted
from ..cells import IDS, median_costs
from ..costs import MIB
from ..statistics import won
from ..sweeps import grids
from .style import COLORS, WIDTH, Named, by_place, set_title, short_names, slug

MAX_SYSTEMS = 10  # systems in a table of wins
MAX_BARS = 48  # bars that fit the height of a page


def heat_map(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Rank by alpha, if both were swept."""
    for line, group in grids(scored):
        table = group.pivot(index="alpha", columns="rank", values="mean")
        table = table.sort_index(ascending=False)
        figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.25 * len(table)))
        texts = table.map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
        _squares(axes, table.to_numpy(dtype=float), texts.to_numpy())
        axes.set_xticks(range(len(table.columns)), [f"{r}" for r in table.columns])
        axes.set_yticks(range(len(table)), [f"{a:g}" for a in table.index])
        axes.set(xlabel="rank", ylabel="alpha")
        set_title(figure, group, f"{line}, {group.metric.iloc[0]}, %")
        (stem,) = [stem for stem, _ in by_place(group)]
        yield f"heat_{stem}_{slug(line)}", figure


def _squares(axes: Axes, values: np.ndarray, texts: np.ndarray) -> None:
    """Colored squares with text, which is light on dark squares.

    Args:
        axes: axes to draw on.
        values: (rows, columns); NaN is left white.
        texts: (rows, columns).
    """
    axes.imshow(values, cmap="cividis", aspect="auto")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    size = min(6.5, 40 / values.shape[1])
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (i, j), value in np.ndenumerate(values):
        color = "white" if value < middle else "black"
        axes.text(j, i, str(texts[i, j]), ha="center", va="center", color=color, fontsize=size)


def wins(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """The number of common seeds in which each system beats each other one; a tie is half."""
    for stem, place in by_place(scored):
        ordered = place.sort_values("mean", ascending=False, kind="stable")
        best = ordered.drop_duplicates("label")[:MAX_SYSTEMS]
        shares, texts = _wins(list(best.scores))
        if np.isnan(shares).all():
            continue
        names = enumerate(short_names(best.label).values(), 1)
        figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.2 * len(best)))
        _squares(axes, shares, texts)
        axes.set_xticks(range(len(best)), [f"{i + 1}" for i in range(len(best))])
        axes.set_yticks(range(len(best)), [f"{name} ({i})" for i, name in names])
        more = place.label.nunique() - len(best)
        note = f"the best {len(best)} of {len(best) + more}" if more else ""
        set_title(figure, place, "common seeds in which the row beats the column", note)
        yield f"wins_{stem}", figure


def _wins(scores: list[Mapping[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Share of wins of each row over each column, and the same as text; NaN without two seeds."""
    size = len(scores)
    shares = np.full((size, size), np.nan)
    texts = np.full((size, size), "", dtype=object)
    for i, j in itertools.permutations(range(size), 2):
        seeds = len(scores[i].keys() & scores[j].keys())
        if seeds < 2:
            continue
        wins = won(scores[i], scores[j])
        shares[i, j] = wins / seeds
        texts[i, j] = f"{wins:g}/{seeds}"
    return shares, texts


def costs(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Training time and peak memory of each system, median over seeds.

    A member of a group has neither: shared costs are not comparable with those of a single run.
    """
    medians = median_costs(runs, ["train_seconds", "peak_memory_bytes"])
    medians["peak_memory_bytes"] /= MIB
    merged = scored.merge(medians.reset_index(), on=IDS)
    panels = (
        ("train_seconds", "training time, s", COLORS[0]),
        ("peak_memory_bytes", "peak memory, MiB", COLORS[4]),
    )
    for stem, place in by_place(merged):
        known = [panel for panel in panels if place[panel[0]].notna().any()]
        if not known:
            continue
        alone = place[place[[column for column, *_ in known]].notna().any(axis=1)]
        shown = alone.sort_values(known[0][0], kind="stable")[:MAX_BARS][::-1]
        figure, found = plt.subplots(
            1, len(known), figsize=(WIDTH, 0.9 + 0.15 * len(shown)), sharey=True, squeeze=False
        )
        names = short_names(shown.label, 22)
        for axes, (column, title, color) in zip(found.flat, known, strict=True):
            _bars(axes, [names[label] for label in shown.label], shown[column], color)
            axes.set_xlabel(title)
        notes = [f"{len(shown)} of {len(alone)}, by time"] if len(alone) > len(shown) else []
        if grouped := len(place) - len(alone):
            notes.append(f"not shown: {counted(grouped, 'system')} trained in groups")
        set_title(figure, place, "cost of training", "\n".join(notes))
        yield f"costs_{stem}", figure


def _bars(axes: Axes, names: list[str], values: pd.Series, color: str) -> None:
    """Bars with their values; a system with unknown cost gets a dash."""
    positions = range(len(names))
    axes.barh(positions, values.fillna(0), color=color, height=0.7)
    axes.set_yticks(positions, names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlim(0, 1.35 * values.max() or 1)  # room for the numbers
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="upper"))  # the last one would be cut
    axes.grid(axis="y", visible=False)
    for position, value in zip(positions, values, strict=True):
        text, end = (
            ("–", 0.0) if pd.isna(value) else (f"{value:,.{0 if value >= 10 else 1}f}", value)
        )
        axes.annotate(
            text, (end, position), (2, 0), textcoords="offset points", va="center", fontsize=6
        )
