"""``python -m lora_bench.report``: tables, pictures and a page from the records of runs."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import argcomplete
import pandas as pd

from ..errors import UserError
from ..program import Parser, check_folder, program
from .commands import COMMANDS
from .formats import FORMATS
from .layout import CHOICES, load_layout, renames
from .pairs import BASELINE
from .runs import PROTOCOLS, check_complete, read_runs, without_collections

RUNS = Path("outputs")
SHOWN = ("tables", "best", "curve", "tuning", "compare")  # commands that print tables
WRITING = ("tables", "curve", "tuning", "plots", "page")  # write below --runs without --out
WITHOUT_RUNS = ("tuning", "compare")  # commands that do not read the runs below --runs
# option -> commands that read it
READERS = {
    "runs": tuple(name for name in COMMANDS if name != "compare"),  # tuning writes there
    "which": ("trace", "compare"),
    "over": ("best",),
    "x": ("curve",),
    "axis": ("curve",),
    "baseline": ("tables",),
    "all_pairs": ("tables",),
    "published": ("tables",),
    "protocol": ("tables", "best", "curve", "compare", "plots", "trace"),
    "statistic": ("tables", "best", "curve"),
    "format": SHOWN,
    "out": (*SHOWN, "plots", "page", "export"),
    **dict.fromkeys(("layout", "rename", "spread", "tasks", "methods"), SHOWN),
    **dict.fromkeys(("columns", "sort", "best"), ("tables",)),
}
EXAMPLES = """\
commands:
  tables (default)  print every table for these runs; write them as Markdown, CSV and LaTeX, and
                    every cell with mean, median, spread, interval and run keys as
                    tables/cells_<protocol>.csv
  best              the best value of --over for each system, and the data that it was chosen on
  curve             score over --x: table, and pictures in <out>/pictures/
  tuning            learning rates in conf/tuned: table, curves, and expected best score by tuning
                    budget in <out>/pictures/tuning/
  compare A B       what changed beyond noise between two folders of results
  plots             write the pictures as SVG and PDF to <out>/pictures/
  page              write one self-contained page, <out>/index.html
  status            done, failed and missing runs of every sweep
  trace             the runs behind a cell, and the command that reproduces each
  export            all runs as one table for pandas: --out runs.csv or runs.parquet
  readme            put the headline table and picture of <runs> into README.md

examples:
  python -m lora_bench.report --runs outputs --format latex
  python -m lora_bench.report --published --protocol best
  python -m lora_bench.report best --over train.lr
  python -m lora_bench.report curve --x method.rank --methods lora,peft_dora
  python -m lora_bench.report tuning --tasks sst2
  python -m lora_bench.report compare results/main outputs
  python -m lora_bench.report trace task=cola method=lora rank=8 train.warmup=0.1
  python -m lora_bench.report trace cola-minilm-lora-r8-s0-c802b76583
"""


# Tables read texts one by one, which is slow with pandas' Arrow strings.
@program
@without_collections()
@pd.option_context("mode.string_storage", "python")
def main(arguments: list[str] | None = None, baseline: str = BASELINE) -> None:
    """Run one command; a user error ends it with one line.

    Args:
        arguments: words of the command line; None: those of the process.
        baseline: the system to compare with if ``--baseline`` names none.
    """
    parser = _parser()
    argcomplete.autocomplete(parser)
    args = parser.parse_intermixed_args(arguments)
    _refuse_without_effect(args)
    args.layout = load_layout(args.layout, _choices(args))
    args.required, args.baseline = args.baseline is not None, args.baseline or baseline
    args.protocol, args.statistic = args.protocol or "last", args.statistic or "mean"
    args.format = args.format or ("terminal" if sys.stdout.isatty() else "markdown")
    reads = args.command not in WITHOUT_RUNS
    needs_folder = reads or args.runs is not None  # tuning writes there
    args.runs = args.runs or RUNS
    if needs_folder and not os.path.isdir(args.runs):
        raise UserError(
            f"--runs {args.runs}: no such folder; train a run first with python -m lora_bench"
        )
    runs, problems = read_runs(args.runs) if reads else (pd.DataFrame(), [])
    if runs.empty and reads and args.command != "status":
        check_complete(problems)
        raise UserError(
            f"--runs {args.runs}: no runs there yet; train one with python -m lora_bench"
        )
    _check_out(args)
    COMMANDS[args.command](args, runs)
    check_complete(problems)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
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
    add("which", nargs="*", help="trace: setting=value, or run keys; compare: the two folders")
    add(
        "--runs", type=Path, help=f"folder with runs, at any depth (default: {RUNS})",
    )  # fmt: skip
    add("--out", type=Path, help="where to write (default: the folder of --runs)")
    add(
        "--protocol", choices=PROTOCOLS, help="epoch whose scores are shown (default: last)",
    )  # fmt: skip
    add(
        "--statistic", choices=("mean", "median"), help="over the seeds (default: mean)",
    )  # fmt: skip
    add(
        "--baseline",
        help=f"system to compare with, or words of its name (default: {BASELINE})",
    )  # fmt: skip
    add(
        "--format", choices=FORMATS,
        help="format of the output (default: terminal, or markdown when written to a file)",
    )  # fmt: skip
    add("--all-pairs", action="store_true", help="tables: also compare all pairs of systems")
    add("--published", action="store_true", help="tables: also compare with published numbers")
    add("--over", type=_words, help="best: settings, as in train.lr,method.alpha")
    add("--x", help="curve: a numeric setting, as in train.lr")
    add(
        "--axis",
        choices=("log", "linear"),
        help="curve: scale of x (default: depends on the values)",
    )
    layout = parser.add_argument_group("layout", "how tables look; also keys of the layout file")
    add = layout.add_argument
    add("--layout", type=Path, help="YAML file with layout options, for example for a paper")
    add("--tasks", type=_words, help="tasks to show, in this order, as in cola,rte")
    add("--methods", type=_words, help="systems to show, by words, as in full,'lora r=8'")
    add("--columns", type=_words, help="columns of the methods table: parameters,tasks,average")
    add(
        "--rename", action="append", help="rename a system, method, task or metric: 'lora r=8=Ours'"
    )
    add("--sort", choices=CHOICES["sort"], help="row order of the methods table (default: score)")
    add("--best", choices=CHOICES["best"], help="position of the best row (default: last)")
    add("--spread", choices=CHOICES["spread"], help="spread in LaTeX (default: subscript)")
    return parser


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return words


def _choices(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the layout; None if not given."""
    names = ("tasks", "methods", "columns", "sort", "best", "spread")
    return {**{name: getattr(args, name) for name in names}, "rename": renames(args.rename)}


def _check_out(args: argparse.Namespace) -> None:
    """Refuse a folder that is not writable, before any slow work.

    Raises:
        UserError: names the option and the folder.
    """
    if args.command == "export":  # writes a single file, without slow work
        return
    if args.out:
        check_folder(f"--out {args.out}", args.out)
    elif args.command in WRITING:
        check_folder(f"--runs {args.runs}", args.runs)


def _refuse_without_effect(args: argparse.Namespace) -> None:
    """Refuse an option that the command does not use.

    Raises:
        UserError: there is one.
    """
    for name, readers in READERS.items():
        if getattr(args, name) not in (None, False, []) and args.command not in readers:
            option = f"--{name.replace('_', '-')}" if name != "which" else " ".join(args.which)
            raise UserError(
                f"{option}: has no effect with {args.command}, only with {', '.join(readers)}"
            )


if __name__ == "__main__":
    main()
