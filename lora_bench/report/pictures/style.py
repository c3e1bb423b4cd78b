"""What all pictures share: one column wide, one typeface, colors, lines and names.

Okabe and Ito's colors, which color-blind readers can distinguish; a marker and a dash pattern for
each line, so that a grayscale print is readable. The background is white: one file serves a paper,
a light and a dark page. The page of ``report page`` draws its own pictures, in the reader's theme.
"""

import hashlib
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..tables import common

WIDTH = 3.3  # inches: a column of a two-column paper
MAX_LINES = 8  # more cannot be distinguished
MAX_LETTERS = 26  # letters of a name
MAX_IN_FILE = 80  # letters of a part of a file name
TITLE_LETTERS = 62  # letters in a line of a title
TITLE_LINES = 3
LABEL_POINTS = 6.0  # size of a name beside a line
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vP*X"
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"], "font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7,
    "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "figure.titlesize": 7,
    "figure.facecolor": "white", "axes.facecolor": "white", "axes.edgecolor": "#444444",
    "text.color": "#222222", "axes.labelcolor": "#222222", "xtick.color": "#222222",
    "ytick.color": "#222222", "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.5,
    "axes.linewidth": 0.6, "lines.linewidth": 1.1, "lines.markersize": 3.5, "axes.xmargin": 0.02,
    "axes.ymargin": 0.04, "axes.spines.top": False, "axes.spines.right": False,
    "svg.hashsalt": "lora-bench", "svg.fonttype": "none", "pdf.fonttype": 42,
    "axes.axisbelow": True, "text.parse_math": False, "figure.constrained_layout.use": True,
}  # fmt: skip
Named = Iterator[tuple[str, Figure]]


def by_place(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each task, model and data, with a name for files."""
    for _, place in frame.groupby("where_id", sort=False):
        condition = place.condition.iloc[0]
        yield slug(f"{place.task.iloc[0]}_{condition}" if condition else place.task.iloc[0]), place


def slug(text: str) -> str:
    """A file name; a long one is cut and gets a hash."""
    name = re.sub(r"\W+", "_", text).strip("_")
    if len(name) <= MAX_IN_FILE:
        return name
    return f"{name[:MAX_IN_FILE]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def short_names(labels: Iterable[str], most: int = MAX_LETTERS) -> dict[str, str]:
    """One line of at most ``most`` letters for each name, no two alike.

    Args:
        labels: names; they may hold anything.
        most: letters; a longer name loses its flags that are off, then its middle.
    """
    found: dict[str, str] = {}
    used: set[str] = set()
    for label in dict.fromkeys(labels):
        name = plain(label)
        if len(name) > most:
            name = " ".join(word for word in name.split() if not word.endswith("=false"))
        if len(name) > most:
            name = f"{name[: most // 2]}…{name[-(most - most // 2 - 1) :]}"
        start, number = name, 1
        while name in used:
            number += 1
            name = f"{start} #{number}"
        used.add(name)
        found[label] = name
    return found


def plain(text: str) -> str:
    """Text on one line without unprintable characters, such as those not allowed in XML."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def styles() -> list[dict[str, Any]]:
    """Color, marker and dash pattern of each of MAX_LINES lines."""
    return [
        {"color": COLORS[i], "marker": MARKERS[i], "linestyle": DASHES[i % len(DASHES)]}
        for i in range(MAX_LINES)
    ]


def set_title(figure: Figure, place: pd.DataFrame, text: str, left_out: str = "") -> None:
    """A title over the whole width: the task, what is shown, and what all systems share.

    Args:
        figure: gets the title.
        place: cells that are shown.
        text: what the picture shows.
        left_out: what it does not show, "" if it shows everything.
    """
    where = ", ".join(filter(None, [place.task.iloc[0], place.condition.iloc[0]]))
    write_title(figure, f"{where}: {text} ({common(place)})", left_out)


def write_title(figure: Figure, text: str, left_out: str = "") -> None:
    """A title over the whole width.

    Args:
        figure: gets the title.
        text: wrapped to TITLE_LINES.
        left_out: lines below it.
    """
    lines = textwrap.wrap(plain(text), TITLE_LETTERS, max_lines=TITLE_LINES, placeholder="…")
    figure.suptitle("\n".join(filter(None, [*lines, left_out])), x=0.01, ha="left")


def end_with_data(axes: Axes) -> None:
    """End the lines of both axes where the data ends."""
    for spine, (low, high), limits in (
        ("bottom", axes.dataLim.intervalx, axes.get_xlim()),
        ("left", axes.dataLim.intervaly, axes.get_ylim()),
    ):
        if low < high:
            axes.spines[spine].set_bounds(max(low, limits[0]), min(high, limits[1]))


def label_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Name each line to the right of the axes, at the height of its end if there is room.

    Args:
        figure: laid out here once, to know the height of the axes.
        axes: axes with all lines drawn.
        ends: x, y, name and color of the last point of each line.
    """
    figure.draw_without_rendering()
    height = axes.get_window_extent().height * 72 / figure.dpi  # points
    bottom, top = axes.get_ylim()
    gap = 1.2 * LABEL_POINTS * (top - bottom) / height
    ends = sorted(ends, key=lambda end: end[1])
    heights = _spread([y for _, y, _, _ in ends], gap, bottom, top)
    for (x, y, name, color), at in zip(ends, heights, strict=True):
        axes.annotate(
            name, (x, y), (1.03, at), textcoords=axes.get_yaxis_transform(), va="center",
            fontsize=LABEL_POINTS, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0,
                        "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def _spread(values: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Ascending values moved apart to ``gap``, within bottom and top if they fit."""
    found: list[float] = []
    for value in values:
        found.append(max(value, found[-1] + gap if found else bottom))
    limit = max(top, bottom + gap * (len(found) - 1))
    for i in reversed(range(len(found))):
        found[i] = min(found[i], limit)
        limit = found[i] - gap
    return found


def best_lines(points: pd.DataFrame, name: str) -> tuple[pd.DataFrame, str]:
    """The points of the MAX_LINES best lines, and a note if others are left out.

    Args:
        points: rows with ``mean``.
        name: column with the name of each point's line.
    """
    best = points.groupby(name, sort=False)["mean"].max()
    chosen = best.sort_values(ascending=False, kind="stable").index[:MAX_LINES]
    note = f"the best {MAX_LINES} of {len(best)}" if len(best) > MAX_LINES else ""
    return points[points[name].isin(chosen)], note


def interval_note(place: pd.DataFrame) -> str:
    """What a band or a bar shows, "" if no cell has one."""
    return ", 95 % interval" if np.any(place.low.notna()) else ""
