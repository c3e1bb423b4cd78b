"""The commands of ``python -m lora_bench.report``."""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from .. import tuned
from ..errors import UserError, counted
from .build import Choices, all_tables
from .cells import make_cells
from .changes import changes_table
from .formats import guarded, to_block, to_csv, to_latex
from .layout import as_published, check_names, choose, shown_cells
from .pairs import BOLD
from .query import export, print_runs, print_status, select
from .runs import PROTOCOLS, check_complete, read_runs
from .selection import best_table
from .sweeps import sweeps
from .table import Table
from .tables import sweep_table
from .tuning import load_curves, tuning_table

MEANING = {
    "last": "Score after the last epoch",
    "best": "Score of each run's best epoch, chosen on the data it is reported on",
}
READING = """\
Percent: {statistic} ± standard deviation over seeds; the number of seeds is in the table's \
title, or after a score from a different number of seeds. {bold}; without bold, no system is \
shown to be better than all others. A system is named by its method and rank and by the settings \
that differ between the systems of its method; `recipe` lists settings that vary across systems, \
unless they are at their default. `chance` is the score of a constant guess; for generated data, \
`bag of words` is that of a linear model on word counts and `ceiling` that of a perfect model on \
the noisy labels. Parameters: trained parameters without the head; `trained` includes the head; \
`file` is the size of the saved file; `train`, `tokens/s` (real tokens of training) and `peak` \
(memory of the process) are medians. Differences come with a 95 % interval (BCa bootstrap) and \
the number of common seeds with which a paired t-test would show a difference of that size in 80 \
% of cases."""


def _tables(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    out = args.out or args.runs
    (out / "tables").mkdir(parents=True, exist_ok=True)
    choices = Choices(args.statistic, args.baseline, args.required, args.all_pairs, args.layout)
    for protocol in PROTOCOLS:
        cells, shown = choose(make_cells(runs, protocol), runs, args.layout)
        flat = cells.assign(keys=cells["keys"].map(" ".join), system=cells.label)
        flat = flat.drop(columns=["first", "scores", "where", "where_id", "system_id", "label"])
        guarded(flat).to_csv(out / "tables" / f"cells_{protocol}.csv", index=False)
        found = all_tables(cells, shown, choices)
        if args.published:
            from .published import published_table

            found.append(published_table(cells, shown, protocol))
        published = [as_published(table, args.layout) for table in found]
        _write_each(found, published, out / "tables", protocol, args.layout.caption)
        heading = f"{MEANING[protocol]}. {READING.format(statistic=args.statistic, bold=BOLD)}"
        text = "\n\n".join([heading, *(to_block(table, "markdown") for table in published)])
        (out / f"table_{protocol}.md").write_text(f"{text}\n", encoding="utf-8")
        if protocol == args.protocol:
            print(text if args.format == "markdown" else _printed(published, args.format, heading))
    print(
        f"\nWritten: {out}/table_last.md and table_best.md, and each table as .csv and .tex in "
        f"tables/; records: {args.runs}",
        file=sys.stderr,
    )


def _printed(tables: list[Table], style: str, heading: str) -> str:
    start = [] if style in ("latex", "csv") else [heading]
    return "\n\n".join([*start, *(to_block(table, style) for table in tables)])


def _write_each(
    tables: list[Table], published: list[Table], folder: Path, protocol: str, caption: str | None
) -> None:
    """Write each table as CSV with this project's names, and as LaTeX with published names."""
    counts = Counter(table.name for table in tables)
    for number, (table, shown) in enumerate(zip(tables, published, strict=True)):
        stem = table.name if counts[table.name] == 1 else f"{table.name}{number}"
        shown = replace(shown, name=f"{stem}_{protocol}")
        if table.name == "methods" and caption:
            shown = replace(shown, title=caption, notes=[])
        (folder / f"{stem}_{protocol}.csv").write_text(to_csv(table), encoding="utf-8")
        (folder / f"{stem}_{protocol}.tex").write_text(to_latex(shown), encoding="utf-8")


def _best(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    if not args.over:
        raise UserError("best: needs --over with settings, as in --over train.lr")
    cells, _ = choose(make_cells(runs, args.protocol), runs, args.layout)
    _print_and_write(best_table(cells, args.over, args.statistic), args)


def _curve(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .pictures import save, score_over

    if not args.x:
        raise UserError("curve: needs --x with a numeric setting, as in --x train.lr")
    cells, _ = choose(make_cells(runs, args.protocol), runs, args.layout)
    found = sweeps(cells)
    chosen = [sweep for sweep in found if args.x in (sweep.path, sweep.name)]
    if not chosen:
        swept = ", ".join(sweep.path for sweep in found) or "nothing: no numeric setting was swept"
        raise UserError(f"--x {args.x}: must be a swept setting: {swept}")
    if args.axis == "log" and chosen[0].points.x.min() <= 0:
        raise UserError(f"--axis log: {args.x} has the value {chosen[0].points.x.min():g}")
    _print_and_write(sweep_table(chosen[0], args.statistic), args)
    for path in save(score_over(chosen[0], args.axis), (args.out or args.runs) / "pictures"):
        print(path, file=sys.stderr)


def _tuning(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .pictures import expected_best_scores, save, tuning_curves

    curves = load_curves(tuned.files().values(), args.layout)
    _print_and_write(tuning_table(curves), args)
    pictures = itertools.chain(tuning_curves(curves), expected_best_scores(curves))
    for path in save(pictures, (args.out or args.runs) / "pictures" / "tuning"):
        print(path, file=sys.stderr)


def _compare(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    if len(args.which) != 2:
        raise UserError("compare: needs two folders of results")
    both, problems = [], []
    for folder in args.which:
        if not Path(folder).is_dir():
            raise UserError(f"compare {folder}: no such folder")
        runs, unread = read_runs(folder)
        if runs.empty:
            raise UserError(f"compare {folder}: no runs there")
        both.append(runs)
        problems += unread
    first, second = (make_cells(runs, args.protocol) for runs in both)
    check_names(pd.concat([first, second]), args.layout)
    changes = changes_table(shown_cells(first, args.layout), shown_cells(second, args.layout))
    _print_and_write(changes, args)
    check_complete(problems)


def _print_and_write(table: Table, args: argparse.Namespace) -> None:
    """Print one table; with --out, also write it as CSV and LaTeX."""
    published = as_published(table, args.layout)
    print(to_block(published, args.format))
    if args.out:
        folder = args.out / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        _write_each([table], [published], folder, args.protocol, None)


def _plots(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .pictures import draw, left_over

    folder = (args.out or args.runs) / "pictures"
    written = draw(make_cells(runs, args.protocol), runs, folder)
    for path in written:
        print(path)
    for path in left_over(folder, written):
        print(
            f"{path}: left over from an earlier call; these runs do not produce it", file=sys.stderr
        )


def _page(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .page import write_page

    path = (args.out or args.runs) / "index.html"
    write_page(runs, path)
    print(path)


def _status(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    print_status(runs, args.runs)


def _trace(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    chosen = select(runs, args.which)
    if chosen.empty:
        raise UserError(f"{' '.join(args.which)}: no run below {args.runs} matches")
    systems = make_cells(chosen, args.protocol).label.nunique()
    found = f"{counted(len(chosen), 'run')} of {counted(systems, 'system')}"
    print(f"{found}, {MEANING[args.protocol].lower()}")
    print_runs(chosen, args.protocol)


def _export(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    out = args.out or args.runs / "runs.csv"
    flat = export(runs, out)
    print(f"{out}: {counted(len(flat), 'run')}, {counted(len(flat.columns), 'column')}")


def _readme(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .readme import update_readme

    print(f"{update_readme(runs, args.runs)}: table and picture are those of {args.runs}")


COMMANDS: dict[str, Callable[[argparse.Namespace, pd.DataFrame], None]] = {
    "tables": _tables,
    "best": _best,
    "curve": _curve,
    "tuning": _tuning,
    "compare": _compare,
    "plots": _plots,
    "page": _page,
    "status": _status,
    "trace": _trace,
    "export": _export,
    "readme": _readme,
}
