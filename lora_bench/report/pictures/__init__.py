"""Pictures of cells and runs as SVG and PDF, for a column of a paper."""

import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd

from .grids import costs, heat_map, wins
from .ranks import rank_diagram
from .scores import over_epochs, pareto, score_over_settings
from .scores import score_over as score_over
from .style import STYLE, Named
from .tuning import expected_best_scores as expected_best_scores
from .tuning import tuning_curves as tuning_curves

CREATOR = "lora-bench"  # marks files of draw()
FORMATS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # no date: reproducible files
PICTURES: tuple[Callable[[pd.DataFrame, pd.DataFrame], Named], ...] = (
    score_over_settings,
    pareto,
    over_epochs,
    heat_map,
    wins,
    rank_diagram,
    costs,
)


def draw(cells: pd.DataFrame, runs: pd.DataFrame, folder: Path) -> list[Path]:
    """Write every picture that these runs allow, each as SVG and as PDF.

    No file is deleted; :func:`left_over` finds those of an earlier call.

    Args:
        cells: cells from ``make_cells``.
        runs: the runs behind the cells.
        folder: folder of the pictures; it is created if needed.

    Returns:
        The files.
    """
    scored = cells[cells["first"] & (cells.n > 0)]
    return save((made for picture in PICTURES for made in picture(scored, runs)), folder)


def save(pictures: Named, folder: Path) -> list[Path]:
    """Draw pictures one after the other and write them as SVG and PDF.

    Args:
        pictures: pairs of name and figure.
        folder: folder of the pictures; it is created if needed.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[Path, None] = {}
    with plt.rc_context(STYLE), warnings.catch_warnings():
        # the typeface lacks some characters: an SVG viewer substitutes them, a PDF shows a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        for name, figure in pictures:
            stem, number = name, 1
            while folder / f"{stem}.svg" in written:  # different names may have the same stem
                number += 1
                stem = f"{name}_{number}"
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # lay out once, not for each file
            for suffix, undated in FORMATS.items():
                path = folder / f"{stem}.{suffix}"
                figure.savefig(path, metadata={"Creator": CREATOR, **undated})
                written[path] = None
            plt.close(figure)
    return list(written)


def left_over(folder: Path, written: list[Path]) -> list[Path]:
    """SVG files of an earlier :func:`draw` in ``folder`` that the last one did not write.

    Args:
        folder: folder of the pictures.
        written: files that the last call wrote.
    """
    mark = f"<dc:title>{CREATOR}</dc:title>".encode()
    others = sorted(set(folder.glob("*.svg")) - set(written))
    return [path for path in others if mark in path.read_bytes()]
