"""One self-contained page: scores of methods by tasks, curves, pairs, published numbers, runs.

The page draws its pictures itself, from the numbers that it holds, so they follow its filters and
the reader's light or dark theme, and thousands of runs take only a few megabytes.
"""

import json
from pathlib import Path

import pandas as pd

from ..pairs import BOLD
from .content import content

FOLDER = Path(__file__).parent
SCRIPTS = ("data.js", "matrix.js", "charts.js", "curves.js", "lists.js", "main.js")


def write_page(runs: pd.DataFrame, path: Path) -> None:
    """Write the page for all these runs; it needs neither a network nor other files.

    Args:
        runs: runs from ``load_records``.
        path: path of the file; its folder is created if needed.
    """
    # no text of a run can open or close an element: even "<!--<script>" would break the page
    text = json.dumps(content(runs), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    parts = {
        "/*STYLE*/": (FOLDER / "page.css").read_text(encoding="utf-8"),
        "/*SCRIPT*/": "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS),
        "<!--BOLD-->": BOLD,
        "/*DATA*/": text.replace("<", "\\u003c"),  # last: it may hold any text
    }
    page = (FOLDER / "page.html").read_text(encoding="utf-8")
    for mark, part in parts.items():
        page = page.replace(mark, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", errors="replace")
