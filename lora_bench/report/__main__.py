"""``python -m lora_bench.report``: tables, pictures and a page from the records of runs."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import argcomplete
import pandas as pd

from ..spec import UserError
from .build import all_tables
from .cells import make_cells
from .formats import FORMATS, to_block
from .pairs import BASELINE
from .query import export, print_runs, print_status, select
from .runs import PROTOCOLS, load_records
from .tables import Table

MEANING = {
    "last": "Score after the last epoch",
    "best": "Score of each run's best epoch, chosen on the data it is reported on",
}
READING = """\
Percent: {statistic} ± standard deviation (n seeds), the best of a column in bold. A system is \
named by its method and rank and by the settings that differ among the systems of its method; \
`recipe` lists settings that differ among all systems, where they are not at their default. \
`chance` is a constant guess; of generated data, `bag of words` is a linear model on word counts \
and `ceiling` a perfect model against the noisy labels. `adapter` and `trained` count parameters \
(`trained`: head included), `file` is what is saved; `train`, `tokens/s` (real tokens of training) \
and `peak` (the process's memory) are medians. Differences come with a 95 % interval (paired t) \
and the number of common seeds that would show a difference of that size in 80 % of cases."""
EXAMPLES = """\
commands:
  tables (default)  print every table these runs fill; write them as Markdown, CSV and LaTeX, and
                    every cell with mean, median, spread, interval and the keys behind it as
                    tables/cells_<protocol>.csv
  plots             write the pictures as SVG and PDF to <out>/pictures/
  page              write one self-contained page, <out>/index.html
  status            done, failed and missing runs of every sweep
  trace             the runs behind a cell, and the command that reproduces each
  export            all runs as one table for pandas: --out runs.csv or runs.parquet
  readme            put the headline table and picture of <runs> into README.md

examples:
  python -m lora_bench.report --runs outputs --format latex
  python -m lora_bench.report --published --protocol best
  python -m lora_bench.report trace task=cola method=lora rank=8 train.warmup=0.1
  python -m lora_bench.report trace cola-minilm-lora-r8-s0-c802b76583
"""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; exit with one line where the user is mistaken."""
    parser = _parser()
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    args.format = args.format or ("terminal" if sys.stdout.isatty() else "markdown")
    try:
        runs = load_records(args.runs)
        if runs.empty and args.command != "status":
            raise UserError(
                f"--runs {args.runs}: no runs there yet; python -m lora_bench makes one"
            )
        COMMANDS[args.command](args, runs)
    except UserError as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lora_bench.report",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "command", nargs="?", choices=COMMANDS, default="tables", metavar="command",
        help="see below",
    )  # fmt: skip
    add("which", nargs="*", help="trace: setting=value, or run keys")
    add(
        "--runs", type=Path, default=Path("outputs"),
        help="folder with runs, at any depth (default: %(default)s)",
    )  # fmt: skip
    add("--out", type=Path, help="where to write (default: the folder of --runs)")
    add(
        "--protocol", choices=PROTOCOLS, default="last",
        help="epoch whose scores are shown (default: %(default)s)",
    )  # fmt: skip
    add(
        "--statistic", choices=("mean", "median"), default="mean",
        help="of the seeds (default: %(default)s)",
    )  # fmt: skip
    add(
        "--baseline",
        help=f"system that the others are compared with, or words of one (default: {BASELINE})",
    )  # fmt: skip
    add(
        "--format", choices=FORMATS,
        help="of what is printed (default: terminal, or markdown into a file)",
    )  # fmt: skip
    add("--all-pairs", action="store_true", help="tables: also compare every two systems")
    add("--published", action="store_true", help="tables: also compare with published numbers")
    return parser


def _tables(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    out = args.out or args.runs
    (out / "tables").mkdir(parents=True, exist_ok=True)
    for protocol in PROTOCOLS:
        cells = make_cells(runs, protocol)
        flat = cells.assign(keys=cells["keys"].map(" ".join), system=cells.label)
        flat = flat.drop(columns=["first", "scores", "where", "where_id", "system_id", "label"])
        flat.to_csv(out / "tables" / f"cells_{protocol}.csv", index=False)
        found = all_tables(cells, runs, args.statistic, args.baseline, args.all_pairs)
        if args.published:
            from .published import published_table

            found.append(published_table(cells, protocol))
        heading = f"{MEANING[protocol]}. {READING.format(statistic=args.statistic)}"
        text = "\n\n".join([heading, *(to_block(table, "markdown") for table in found)])
        (out / f"table_{protocol}.md").write_text(f"{text}\n")
        _write_each(found, out / "tables", protocol)
        if protocol == args.protocol:
            print("\n\n".join([heading, *(to_block(table, args.format) for table in found)]))
    print(
        f"\nWritten: {out}/table_last.md and table_best.md, and each table as .csv and .tex in "
        f"tables/; records: {args.runs}",
        file=sys.stderr,
    )


def _write_each(tables: list[Table], folder: Path, protocol: str) -> None:
    counts = Counter(table.name for table in tables)
    for number, table in enumerate(tables):
        stem = table.name if counts[table.name] == 1 else f"{table.name}{number}"
        (folder / f"{stem}_{protocol}.csv").write_text(FORMATS["csv"](table))
        (folder / f"{stem}_{protocol}.tex").write_text(FORMATS["latex"](table))


def _plots(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .pictures import draw, left_over

    folder = (args.out or args.runs) / "pictures"
    written = draw(make_cells(runs, args.protocol), runs, folder)
    for path in written:
        print(path)
    for path in left_over(folder, written):
        print(f"{path}: of an earlier call, these runs do not fill it", file=sys.stderr)


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
    print(f"{len(chosen)} runs of {systems} systems, {MEANING[args.protocol].lower()}")
    print_runs(chosen, args.protocol)


def _export(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    out = args.out or args.runs / "runs.csv"
    flat = export(runs, out)
    print(f"{out}: {len(flat)} runs, {len(flat.columns)} columns")


def _readme(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .readme import update_readme

    print(f"{update_readme(runs, args.runs)}: table and picture are those of {args.runs}")


COMMANDS = {
    "tables": _tables,
    "plots": _plots,
    "page": _page,
    "status": _status,
    "trace": _trace,
    "export": _export,
    "readme": _readme,
}


if __name__ == "__main__":
    main()
