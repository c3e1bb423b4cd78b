"""Malformed data files are either trained on or refused in one line that names the file."""

import copy
import csv
import gzip
import io
import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from lora_bench.compose import validate
from lora_bench.errors import UserError
from lora_bench.spec import LocalLayout, Spec, TaskSpec
from lora_bench.studies.low_rank.compose import compose as compose_study
from lora_bench.studies.low_rank.run import prepare as prepare_study
from lora_bench.training.prepared import prepare
from lora_bench.training.run import execute

from ..conftest import compose_in
from ..helpers import TASKS, official_rows
from .harness import (
    CANARY,
    ODD_VALUES,
    VALUE_FAULTS,
    cases,
    check_line,
    damaged,
    mutated,
    random_of,
    watched,
)

pytestmark = pytest.mark.slow

OWN_FILES = ("own.csv", "own.jsonl", "own.tsv")
GLUE = ("cola", "mnli", "mrpc", "stsb")
SQUAD = ("squad_v1", "squad_v2")
SMALL = ["model=tiny", "progress=false", "data=local", "train.epochs=1"]


def spec_of(kind: str, folder: Path) -> Spec:
    """The settings of a run on files of a kind below ``folder / "data"``."""
    suffix = Path(kind).suffix
    spec = compose_in(folder, *SMALL, f"task={'cola' if suffix else kind}", "data.root=x")
    spec.data.root = str(folder / "data")
    if suffix:
        files = {"train": f"train{suffix}", "validation": f"dev{suffix}"}
        spec.task = TaskSpec(
            name="own", columns=["text", "other"], labels=["no", "yes"], metrics=["accuracy"],
            local=LocalLayout(files=files),
        )  # fmt: skip
    return validate(spec)


def own_rows() -> list[dict[str, Any]]:
    return [
        {"text": f'A "text", {i}', "other": f"é{i}", "label": ("no", "yes")[i % 2]}
        for i in range(20)
    ]


def as_csv(rows: list[list[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def squad(*, unanswerable: bool) -> dict[str, Any]:
    def question(i: int, article: int) -> dict[str, Any]:
        empty = unanswerable and i % 2
        answers = [] if empty else [{"text": "river", "answer_start": 4}]
        found = {"id": f"{article}-{i}", "question": f"What {i}?", "answers": answers}
        return {**found, "is_impossible": bool(empty)} if unanswerable else found

    articles = [
        {
            "title": f"Article {article}",
            "paragraphs": [
                {
                    "context": "The river is long, and deep.",
                    "qas": [question(i, article) for i in range(4)],
                }
            ],
        }
        for article in range(3)
    ]
    return {"version": "1", "data": articles}


def table_of(kind: str, split: str) -> list[list[Any]]:
    """Rows of a file, starting with its header if it has one."""
    if kind in GLUE:
        return copy.deepcopy(official_rows(TASKS[kind], split, 20))  # they share a header
    rows = own_rows()
    return [[*rows[0]], *([*row.values()] for row in rows)]


def text_of(kind: str, rows: list[list[Any]]) -> str:
    if kind == "own.csv":
        return as_csv(rows)
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def good(kind: str, split: str) -> str:
    if kind in SQUAD:
        return json.dumps(squad(unanswerable=kind == "squad_v2"))
    if kind == "own.jsonl":
        return "".join(json.dumps(row) + "\n" for row in own_rows())
    return text_of(kind, table_of(kind, split))


def changed_table(kind: str, split: str, rng: random.Random) -> str:
    """One cell, row or column is changed."""
    rows = table_of(kind, split)
    row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    value = rng.choice([odd for odd in ODD_VALUES if odd != "\ud800"])

    def cut(row: list[Any]) -> list[Any]:
        return row[:column] + row[column + 1 :]

    change = rng.randrange(8)
    if change < 3:
        rows[row][column] = value
    elif change == 3:
        rows = [cut(one) for one in rows]
    elif change == 4:
        rows[row] = cut(rows[row])
    elif change == 5:
        rows[row:row] = rng.choice([[[]], [[""]], [rows[0]], [rows[row]], [[*rows[row], "x"]]])
    elif change == 6:
        rows = rng.choice([rows[:1], rows[1:], rows[:2], rows[::-1], []])
    else:
        rows = [[value if i == column else cell for i, cell in enumerate(one)] for one in rows]
    return text_of(kind, rows)


def malformed(kind: str, split: str, fault: str, rng: random.Random) -> bytes:
    if fault == "bytes":
        return damaged(good(kind, split).encode(), rng)
    if fault == "table":
        return changed_table(kind, split, rng).encode("utf-8", "surrogatepass")
    if kind in SQUAD:
        value = squad(unanswerable=kind == "squad_v2")
        if rng.random() < 0.7:  # most places are in questions
            value["data"] = mutated(value["data"], fault, rng)
            return json.dumps(value).encode()
        return json.dumps(mutated(value, fault, rng)).encode()
    rows = own_rows()
    place = rng.randrange(len(rows))
    rows[place] = mutated(rows[place], fault, rng)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def path_of(spec, split: str) -> Path:
    return Path(spec.data.root) / spec.task.local.folder / spec.task.local.files[split]


def run(kind: str, fault: str, seed: int, tmp_path: Path, train: bool) -> None:
    rng = random_of(kind, fault, seed)
    spec = spec_of(kind, tmp_path)
    spec.data.skip_bad = rng.random() < 0.3
    for split in spec.task.local.files:
        if split in ("train", *spec.task.validation):
            path_of(spec, split).parent.mkdir(parents=True, exist_ok=True)
            path_of(spec, split).write_text(good(kind, split), newline="")
    split = rng.choice(["train", *spec.task.validation])
    broken = path_of(spec, split)
    broken.write_bytes(malformed(kind, split, fault, rng))
    allowed = [tmp_path / "out", tmp_path / "cache"]
    with watched(allowed) as written:
        try:
            prepared = prepare(spec)
            assert prepared.prepared.encoded and prepared.prepared.facts
            if train:
                (outcome,) = execute([prepared])
                assert outcome.error is None, outcome.error
        except UserError as error:
            check_line(str(error))
            assert broken.name in str(error), str(error)
    assert not written and not list(tmp_path.rglob(CANARY))


@cases([*OWN_FILES, *GLUE], ["bytes"], 6)
def test_bytes_of_a_table(kind, fault, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(kind, fault, seed, tmp_path, train=seed < 2)


@cases(["own.csv", "own.tsv", *GLUE], ["table"], 12)
def test_cells_rows_and_columns_of_a_table(kind, fault, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(kind, fault, seed, tmp_path, train=seed < 4)


@cases(["own.jsonl", *SQUAD], [*VALUE_FAULTS, "bytes"], 6)
def test_values_of_json(kind, fault, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(kind, fault, seed, tmp_path, train=seed < 2)


def idx(sizes: tuple[int, ...], content: bytes, magic: bytes = b"\0\0\x08") -> bytes:
    return magic + bytes([len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + content


IDX_FILES = {
    f"{stem}-{part}": (count, part.startswith("images"))
    for stem, count in (("train", 40), ("t10k", 20))
    for part in ("images-idx3-ubyte", "labels-idx1-ubyte")
}


def idx_of(name: str, rng: random.Random, fault: str) -> bytes:
    count, images = IDX_FILES[name]
    sizes = (count, 4, 4) if images else (count,)
    content = bytes(rng.randrange(256) if images else i % 10 for i in range(count * 16))
    content = content[: count * (16 if images else 1)]
    if fault == "sizes":
        numbers = [0, 1, 2, count, 2**16, 2**31, 2**32 - 1]
        sizes = tuple(rng.choice([size, rng.choice(numbers)]) for size in sizes)
    elif fault == "magic":
        return idx(sizes, content, bytes(rng.choice([0, 1, 8, 9, 13, 255]) for _ in range(3)))
    elif fault == "dimensions":
        sizes = rng.choice([(), (count,), (count, 16), (count, 4, 4), (count, 2, 2, 4)])
    elif fault == "values":
        content = bytes(rng.choice([0, 9, 10, 255]) for _ in content)
    elif fault == "bytes":
        return damaged(idx(sizes, content), rng)
    return idx(sizes, content)


@cases(["idx"], ["sizes", "magic", "dimensions", "values", "bytes", "gzip"], 6)
def test_idx_files(kind, fault, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random_of(kind, fault, seed)
    for name in IDX_FILES:
        (tmp_path / name).write_bytes(idx_of(name, rng, "none"))
    name = rng.choice([*IDX_FILES])
    content = idx_of(name, rng, fault)
    broken = tmp_path / name
    if fault == "gzip":
        broken.unlink()
        broken = tmp_path / f"{name}.gz"
        content = damaged(gzip.compress(content), rng)
    broken.write_bytes(content)
    words = [
        "layer=full",
        "data=mnist",
        f"root={tmp_path}",
        f"out_dir={tmp_path}/out",
        "epochs=1",
        "width=8",
    ]
    with watched([tmp_path / "out"]) as written:
        try:
            assert prepare_study([copy.deepcopy(compose_study(words))])
        except UserError as error:
            check_line(str(error))
            assert name in str(error), str(error)
    assert not written and not list(tmp_path.rglob(CANARY))
