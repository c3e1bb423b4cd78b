"""``python -m lora_bench.report``: tables, pictures and a page from the records of runs."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from .. import record as records
from . import PROTOCOLS, load_records
from .cells import compare_systems, labels, make_cells
from .formats import FORMATS, fold_constants
from .tables import Table, all_tables

MEANING = {
    "last": "Score after the last epoch",
    "best": "Score of each run's best epoch, chosen on the data it is reported on",
}
READING = """\
Percent: {statistic} ± standard deviation (n seeds), the best of a column in bold. `chance` is a constant guess; of generated \
data, `bag of words` is a linear model on word counts and `ceiling` a perfect model against the noisy labels. `adapter` and \
`trained` count parameters (`trained`: head included), `file` is what is saved; `train`, `tokens/s` (real tokens of training) \
and `peak` (the process's memory) are medians. Differences come with a 95 % interval (paired t) and the number of common seeds \
that would show a difference of that size in 80 % of cases."""
EXAMPLES = """\
commands:
  tables (default)  print every table these runs fill; write them as Markdown, CSV and LaTeX, and every cell with mean, median,
                    spread, interval and the keys behind it as tables/cells_<protocol>.csv
  plots             write the pictures as SVG to <out>/pictures/
  page              write one self-contained page, <out>/index.html
  status            done, failed and missing runs of every sweep
  trace             the runs behind a cell, and the command that reproduces each
  export            all runs as one table for pandas: --out runs.csv or runs.parquet
  readme            put the headline table and picture of <runs> into README.md

examples:
  python -m lora_bench.report --runs outputs --format latex
  python -m lora_bench.report --published --protocol best
  python -m lora_bench.report trace task=cola method=lora rank=8
  python -m lora_bench.report trace cola-minilm-lora-r8-s0-c802b76583
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lora_bench.report",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=COMMANDS,
        default="tables",
        metavar="command",
        help="see below",
    )
    parser.add_argument("which", nargs="*", help="trace: column=value, or run keys")
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("outputs"),
        help="folder with runs, at any depth (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, help="where to write (default: the folder of --runs)")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="last",
        help="epoch whose scores are shown (default: %(default)s)",
    )
    parser.add_argument(
        "--statistic",
        choices=("mean", "median"),
        default="mean",
        help="of the seeds (default: %(default)s)",
    )
    parser.add_argument(
        "--baseline",
        default="lora r=8",
        help="system that the others are paired with (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="of what is printed (default: terminal, or markdown into a file)",
    )
    parser.add_argument(
        "--published", action="store_true", help="tables: also beside published numbers"
    )
    args = parser.parse_args(arguments)
    runs = load_records(args.runs)
    if runs.empty and args.command != "status":
        sys.exit(f"error: --runs {args.runs}: no runs there yet; python -m lora_bench makes one")
    args.format = args.format or ("terminal" if sys.stdout.isatty() else "markdown")
    COMMANDS[args.command](args, runs)


def _tables(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    out = args.out or args.runs
    (out / "tables").mkdir(parents=True, exist_ok=True)
    for protocol in PROTOCOLS:
        cells = make_cells(runs, protocol)
        flat = cells.assign(system=labels(cells), keys=cells["keys"].map(" ".join)).drop(
            columns=["first", "scores"]
        )
        flat.to_csv(out / "tables" / f"cells_{protocol}.csv", index=False)
        found = _built(args, runs, cells, protocol)
        heading = f"{MEANING[protocol]}. {READING.format(statistic=args.statistic)}"
        (out / f"table_{protocol}.md").write_text(
            "\n\n".join([heading, *(_block(table, "markdown") for table in found)]) + "\n"
        )
        for number, table in enumerate(found):
            name = (
                f"{table.name}_{protocol}"
                if [t.name for t in found].count(table.name) == 1
                else f"{table.name}{number}_{protocol}"
            )
            (out / "tables" / f"{name}.csv").write_text(FORMATS["csv"](table))
            (out / "tables" / f"{name}.tex").write_text(FORMATS["latex"](table))
        if protocol == args.protocol:
            print("\n\n".join([heading, *(_block(table, args.format) for table in found)]))
    print(
        f"\nWritten: {out}/table_last.md and table_best.md, and each table as .csv and .tex in tables/; records: {args.runs}",
        file=sys.stderr,
    )


def _built(
    args: argparse.Namespace, runs: pd.DataFrame, cells: pd.DataFrame, protocol: str
) -> list[Table]:
    tables = all_tables(
        cells, runs, args.statistic, compare_systems(cells, args.baseline), args.baseline
    )
    if args.published:
        from .published import published_table

        tables.append(published_table(cells, protocol))
    return tables


def _block(table: Table, style: str) -> str:
    rest, line = fold_constants(table) if style in ("markdown", "terminal") else (table, "")
    return "\n\n".join(
        part
        for part in (
            f"{'## ' if style == 'markdown' else ''}{table.title}",
            line,
            FORMATS[style](rest),
        )
        if part
    )


def _plots(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .plots import draw

    for path in draw(make_cells(runs, args.protocol), runs, (args.out or args.runs) / "pictures"):
        print(path)


def _page(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .page import write_page

    path = (args.out or args.runs) / "index.html"
    write_page(runs, path)
    print(path)


def _status(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    """Every sweep's plan against the records, then what is there beside."""
    found = dict(zip(runs.key, runs.status, strict=True)) if len(runs) else {}
    planned: set[str] = set()
    for plan in records.read_plans(args.runs):
        planned |= set(plan["keys"])
        states = {key: found.get(key, "missing") for key in plan["keys"]}
        counts = [
            f"{list(states.values()).count(state)} {name}"
            for state, name in (("ok", "done"), ("failed", "failed"), ("missing", "missing"))
        ]
        print(f"{plan['command']}\n  {len(states)} runs: {', '.join(counts)}")
        for key in (key for key, state in states.items() if state != "ok"):
            reason = f": {runs.error[runs.key == key].iloc[0]}" if key in found else ""
            print(f"  {states[key]} {key}{reason}")
    alone = {key: state for key, state in found.items() if key not in planned}
    print(
        f"beside sweeps: {sum(s == 'ok' for s in alone.values())} done, {sum(s != 'ok' for s in alone.values())} failed"
    )


def _trace(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    """Runs that match: key, score, seed, and the command that reproduces each."""
    chosen = runs
    for condition in args.which:
        column, equals, value = condition.partition("=")
        if not equals:
            chosen = chosen[chosen.key == condition]
        elif column in runs and column not in ("last", "best", "epochs", "versions"):
            chosen = chosen[
                chosen[column].map(lambda found, v=value: str(found) == v or str(found) == f"{v}.0")
            ]
        else:
            sys.exit(
                f"error: {condition}: must be a run key, or column=value with a column among {', '.join(runs.columns)}"
            )
    if chosen.empty:
        sys.exit(f"error: {' '.join(args.which)}: no run below {args.runs} matches")
    names = labels(make_cells(chosen, args.protocol))
    print(f"{len(chosen)} runs of {names.nunique()} systems, {MEANING[args.protocol].lower()}")
    for run in chosen.itertuples():
        scores = getattr(run, args.protocol) or {}
        shown = (
            ", ".join(f"{name} {100 * value:.2f}" for name, value in scores.items())
            or f"{run.status}: {run.error}"
        )
        print(f"\n{run.key}\n  {shown}\n  {run.command}\n  commit {run.commit}")


def _export(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    """One flat table: scores as columns ``last.accuracy``, ``best.accuracy`` ..."""
    out = args.out or args.runs / "runs.csv"
    flat = runs.drop(
        columns=["last", "best", "epochs", "versions", "chance", "ceiling", "bag_of_words"]
    )
    for protocol in PROTOCOLS:
        flat = flat.join(
            pd.DataFrame([scores or {} for scores in runs[protocol]]).add_prefix(f"{protocol}.")
        )
    if out.suffix not in (".csv", ".parquet"):
        sys.exit(f"error: --out {out}: must end in .csv or .parquet")
    out.parent.mkdir(parents=True, exist_ok=True)
    flat.to_parquet(out) if out.suffix == ".parquet" else flat.to_csv(out, index=False)
    print(f"{out}: {len(flat)} runs, {len(flat.columns)} columns")


def _readme(args: argparse.Namespace, runs: pd.DataFrame) -> None:
    from .readme import update_readme

    print(f"{update_readme(runs, args.runs)}: table and picture are those of {args.runs}")


COMMANDS = {
    "tables": _tables, "plots": _plots, "page": _page, "status": _status, "trace": _trace, "export": _export, "readme": _readme,
}  # fmt: skip


if __name__ == "__main__":
    main()
