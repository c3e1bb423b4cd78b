"""``python -m lora_bench.report``: tables, pictures and a page from the records of runs."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import argcomplete
import pandas as pd

from ..program import check_folder, program
from ..spec import UserError
from .commands import COMMANDS
from .formats import FORMATS
from .layout import CHOICES, load_layout, renames
from .pairs import BASELINE
from .runs import PROTOCOLS, load_records, without_collections

RUNS = Path("outputs")
SHOWN = ("tables", "best", "curve", "tuning", "compare")  # commands that print tables
WRITING = ("tables", "curve", "tuning", "plots", "page")  # below --runs where there is no --out
WITHOUT_RUNS = ("tuning", "compare")  # commands that do not read the runs of --runs
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
    **dict.fromkeys(("layout", "rename", "spread"), SHOWN),
    **dict.fromkeys(("tasks", "methods"), ("tables", "best", "curve", "tuning")),
    **dict.fromkeys(("columns", "sort", "best"), ("tables",)),
}
EXAMPLES = """\
commands:
  tables (default)  print every table these runs fill; write them as Markdown, CSV and LaTeX, and
                    every cell with mean, median, spread, interval and the keys behind it as
                    tables/cells_<protocol>.csv
  best              the best value of --over for each system, and on which data it was chosen
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


# Tables read texts one by one, which pandas' Arrow strings make slow.
@program
@without_collections()
@pd.option_context("mode.string_storage", "python")
def main(arguments: list[str] | None = None) -> None:
    """Run one command; exit with one line where the user is mistaken."""
    parser = _parser()
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    _refuse_without_effect(args)
    args.layout = load_layout(args.layout, _choices(args))
    args.protocol, args.statistic = args.protocol or "last", args.statistic or "mean"
    args.format = args.format or ("terminal" if sys.stdout.isatty() else "markdown")
    args.runs = args.runs or RUNS
    if args.command not in WITHOUT_RUNS and not os.path.isdir(args.runs):
        raise UserError(
            f"--runs {args.runs}: no folder, so no runs there yet; python -m lora_bench makes one"
        )
    runs = pd.DataFrame() if args.command in WITHOUT_RUNS else load_records(args.runs)
    if runs.empty and args.command not in ("status", *WITHOUT_RUNS):
        raise UserError(f"--runs {args.runs}: no runs there yet; python -m lora_bench makes one")
    _check_out(args)
    COMMANDS[args.command](args, runs)


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
    add("which", nargs="*", help="trace: setting=value, or run keys; compare: the two folders")
    add(
        "--runs", type=Path, help=f"folder with runs, at any depth (default: {RUNS})",
    )  # fmt: skip
    add("--out", type=Path, help="where to write (default: the folder of --runs)")
    add(
        "--protocol", choices=PROTOCOLS, help="epoch whose scores are shown (default: last)",
    )  # fmt: skip
    add(
        "--statistic", choices=("mean", "median"), help="of the seeds (default: mean)",
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
    add("--over", type=_words, help="best: settings, as in train.lr,method.alpha")
    add("--x", help="curve: a numeric setting, as in train.lr")
    add("--axis", choices=("log", "linear"), help="curve: (default: what suits the values)")
    layout = parser.add_argument_group("layout", "how tables look; each is a key of the file too")
    add = layout.add_argument
    add("--layout", type=Path, help="YAML file with the choices of a paper")
    add("--tasks", type=_words, help="which, in this order, as in cola,rte")
    add("--methods", type=_words, help="names, or words of systems, as in full,'lora r=8'")
    add("--columns", type=_words, help="of the table of methods: parameters,tasks,average")
    add("--rename", action="append", help="'lora r=8=Ours': a system, method, task or metric")
    add("--sort", choices=CHOICES["sort"], help="rows of the table of methods (default: score)")
    add("--best", choices=CHOICES["best"], help="where the best row stands (default: last)")
    add("--spread", choices=CHOICES["spread"], help="in LaTeX (default: subscript)")
    return parser


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _choices(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the layout, None where they were not given."""
    names = ("tasks", "methods", "columns", "sort", "best", "spread")
    return {**{name: getattr(args, name) for name in names}, "rename": renames(args.rename)}


def _check_out(args: argparse.Namespace) -> None:
    """Refuse a folder that cannot be written to, before what takes time.

    Raises:
        UserError: names the option and the folder.
    """
    if args.command == "export":  # a file, which is soon written
        return
    if args.out:
        check_folder(f"--out {args.out}", args.out)
    elif args.command in WRITING:
        check_folder(f"--runs {args.runs}", args.runs)


def _refuse_without_effect(args: argparse.Namespace) -> None:
    """Refuse an option that the command does not read.

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
