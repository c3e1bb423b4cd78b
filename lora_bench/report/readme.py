"""The README's headline: a table and a picture that a command inserts."""

from pathlib import Path

import pandas as pd

from .cells import make_cells
from .formats import escape_markdown, to_markdown
from .layout import DEFAULT, as_published
from .methods_table import methods_table
from .pictures import draw

README = Path(__file__).resolve().parents[2] / "README.md"
NAME = "results"  # name of the block
PICTURE = "pareto_parameters_stsb"


def headline(runs: pd.DataFrame, folder: str) -> str:
    """The content of the block.

    Args:
        runs: what is shown.
        folder: folder of the runs, as the README links it.
    """
    cells = make_cells(runs, "last")
    table = as_published(methods_table(cells, runs, "mean"), DEFAULT)
    command = f"`python -m lora_bench.report readme --runs {folder}`"
    caption = (
        f"{table.title}. Percent after the last epoch, mean ± standard deviation; bold: better "
        f"than all others of the column (sign-flip test, p at most 0.05). By {command}."
    )
    picture = f"![STS-B score by trained parameters]({folder}/pictures/{PICTURE}.svg)"
    return "\n\n".join([caption, to_markdown(table), *map(escape_markdown, table.notes), picture])


def update_readme(runs: pd.DataFrame, folder: Path, readme: Path = README) -> Path:
    """Draw the pictures and replace the block.

    Args:
        runs: what is shown.
        folder: folder of the runs; pictures go below it.
        readme: file with the marks.

    Raises:
        ValueError: the marks are not there.
    """
    replaced = with_block(readme, NAME, headline(runs, folder.as_posix()))
    draw(make_cells(runs, "last"), runs, folder / "pictures")
    readme.write_text(replaced, encoding="utf-8")
    return readme


def with_block(readme: Path, name: str, block: str) -> str:
    """A file's text with a new block between ``<!-- name: start -->`` and ``<!-- name: end -->``.

    Raises:
        ValueError: the marks are not there.
    """
    text = readme.read_text(encoding="utf-8")
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    if start not in text or end not in text:
        raise ValueError(f"{readme}: lacks {start} ... {end}")
    return f"{text.split(start)[0]}{start}\n\n{block}\n\n{end}{text.split(end)[1]}"
