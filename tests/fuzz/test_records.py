"""Malformed records, plans and files beside them are reported by every command that reads them."""

import json
import random
import shutil
from pathlib import Path

import pytest

from lora_bench import plans, record

from .harness import (
    VALUE_FAULTS,
    ask,
    cases,
    check,
    damaged,
    mutated,
    random_of,
    write_json,
)

pytestmark = pytest.mark.slow

SWEEP = [
    "-m", "model=tiny", "task=cola,stsb", "seed=0,1", "data.toy_train=48", "data.toy_validation=24",
    "train.epochs=1", "progress=false",
]  # fmt: skip
REPORTS = [["status"], ["tables", "--published"], ["trace", "method=lora"], ["export"]]
DRAWN = [["plots"], ["page"]]  # seconds each


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """The runs of a sweep, one of them failed, and its plan."""
    root = tmp_path_factory.mktemp("originals")
    answer = ask(
        "lora_bench", *SWEEP, f"out_dir={root}/out", f"cache_dir={root}/cache", named=[root]
    )
    assert answer.code == 0, answer.err
    ours, _ = record.read_all(root / "out")
    folder = record.folder_of(root / "out", ours[0].identity)
    content = json.loads((folder / record.FILE).read_text())
    failed = {"status": "failed", "last": None, "best": None, "epochs": [], "error": "it failed"}
    write_json(folder / record.FILE, content | failed | {"reloaded": None, "parameters": None})
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.json") if p.is_file()}


def break_file(path: Path, fault: str, rng: random.Random) -> None:
    if fault == "bytes":
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif fault == "place":
        path.unlink()
        rng.choice([lambda: None, path.mkdir, lambda: path.symlink_to(path)])()
    else:
        write_json(path, mutated(json.loads(path.read_text()), fault, rng))


def run(originals: Path, broken: Path, fault: str, rng: random.Random, where) -> None:
    tmp_path, monkeypatch = where
    root, out = tmp_path / "root", tmp_path / "root" / "out"
    shutil.copytree(originals, root)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    path = root / broken.relative_to(originals)
    break_file(path, fault, rng)
    for words in [*REPORTS, rng.choice(DRAWN)] if rng.random() < 0.1 else REPORTS:
        answer = ask(
            "lora_bench.report", *words, "--runs", str(out), "--out",
            str(tmp_path / f"report{'.csv' if words == ['export'] else ''}"),
            named=[tmp_path / "report", tmp_path / "report.csv"],
        )  # fmt: skip
        check(answer, tmp_path)
    before = files(out)
    folders = [f"out_dir={out}", f"cache_dir={root}/cache"]
    answer = ask("lora_bench", *SWEEP, *folders, named=[out, root / "cache"])
    check(answer, tmp_path)
    check_kept(before, out, answer.code)


def check_kept(before: dict[str, bytes], out: Path, code: int) -> None:
    """No good record is lost; if the sweep says that it is done, its four runs are good."""
    for name, content in before.items():
        if name.endswith(record.FILE) and (out / name).read_bytes() != content:
            assert json.loads(content)["status"] == "failed", name  # it was tried again
    found, _ = record.read_all(out)
    assert code != 0 or sum(one.status == "ok" for one in found) >= 4


def one_of(originals: Path, kind: str, rng: random.Random) -> Path:
    found = sorted((originals / "out").rglob(record.FILE))
    failed = [p for p in found if json.loads(p.read_text())["status"] == "failed"]
    good = [path for path in found if path not in failed]
    planned = sorted((originals / "out").rglob(f"{plans.FOLDER}/*.json"))
    return rng.choice({"record": good, "failed record": failed, "plan": planned}[kind])


@cases(["record"], [*VALUE_FAULTS, "bytes", "place"], 5)
def test_a_record(originals, kind, fault, seed, tmp_path, monkeypatch):
    rng = random_of(kind, fault, seed)
    run(originals, one_of(originals, kind, rng), fault, rng, (tmp_path, monkeypatch))


@cases(["failed record", "plan"], [*VALUE_FAULTS, "bytes", "place"], 3)
def test_a_failed_record_and_a_plan(originals, kind, fault, seed, tmp_path, monkeypatch):
    rng = random_of(kind, fault, seed)
    run(originals, one_of(originals, kind, rng), fault, rng, (tmp_path, monkeypatch))
