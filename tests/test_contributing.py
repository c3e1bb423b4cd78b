"""CONTRIBUTING is followed to the letter: its instructions give a working method and task."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lora_bench import record
from lora_bench.methods import get_method
from lora_bench.spec import MethodSpec

from .helpers import command_line

ROOT = Path(__file__).parent.parent
SMALL = ["model=tiny", "data.toy_train=32", "data.toy_validation=16", "train.epochs=1"]
MINE = ["task=cola", "method=mine", *SMALL]


def block(section: str, language: str) -> str:
    """The first fenced block of that language in a section of CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


def command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    folders = [f"out_dir={folder}/out", f"cache_dir={folder}/cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    arguments = [sys.executable, "-m", "lora_bench", *words, *folders]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project's code and presets."""
    for name in ("lora_bench", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.slow
def test_one_file_and_one_preset_make_a_method(project):
    folders = [f"out_dir={project}/out", f"cache_dir={project}/cache"]
    assert "mine" in command_line(*MINE, *folders).stderr  # not there yet
    assert record.read_all(project) == ([], [])
    (project / "lora_bench" / "methods" / "mine.py").write_text(block("Add a method", "python"))
    (project / "conf" / "method" / "mine.yaml").write_text(block("Add a method", "yaml"))
    done = command(project, *MINE)
    assert done.returncode == 0, done.stderr
    ((finished,), _) = record.read_all(project / "out")
    assert finished.status == "ok" and finished.spec["method"]["name"] == "mine"
    # the preset's policy, as the block says
    assert finished.parameters["trained"] == finished.parameters["head"]


@pytest.mark.slow
def test_a_method_of_another_package_and_its_preset_are_found(tmp_path, monkeypatch):
    """The method by its entry point, the preset from a folder on the search path."""
    namespace: dict[str, Any] = {}
    code = block("Add a method", "python").replace(
        "from . import", "from lora_bench.methods import"
    )
    exec(code, namespace)

    class Point:
        name = "mine"

        def load(self):
            return namespace["METHOD"]

    monkeypatch.setattr(
        "lora_bench.methods.entry_points",
        lambda group: [Point()] if group == "lora_bench.methods" else [],
    )
    assert isinstance(get_method(MethodSpec(name="mine")), namespace["Mine"])
    (tmp_path / "elsewhere" / "method").mkdir(parents=True)
    (tmp_path / "elsewhere" / "method" / "mine.yaml").write_text(block("Add a method", "yaml"))
    folders = [f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
    assert "mine" in command_line(*MINE, *folders).stderr  # its folder is not on the search path
    for more in ([], ["-m", "seed=1,2"]):
        path = f"hydra.searchpath=[file://{tmp_path}/elsewhere]"
        done = command_line(*more, path, *MINE, *folders)
        assert done.returncode == 0, done.stderr
    assert [r.spec["seed"] for r in record.read_all(tmp_path / "out")[0]] == [0, 1, 2]


@pytest.mark.slow
def test_one_file_and_one_preset_make_a_kind_of_task(project):
    recipe = ["method=full", "train.epochs=8", "train.lr=5e-3", "data.toy_train=160"]
    words = ["task=names", *SMALL, *recipe]
    assert "names" in command_line(*words).stderr  # not there yet
    tasks = project / "lora_bench" / "tasks"
    (tasks / "tagging.py").write_text(block("Add a kind of task", "python"))
    (project / "conf" / "task" / "names.yaml").write_text(block("Add a kind of task", "yaml"))
    done = command(project, *words)
    assert done.returncode == 0, done.stderr
    ((finished,), problems) = record.read_all(project / "out")
    assert finished.status == "ok" and not problems
    chance = finished.data["validation"]["chance"]["f1"]
    assert 0 < chance < 0.5 < 0.9 < finished.last["scores"]["f1"]
    (table,) = (project / "out").rglob("predictions/validation.parquet")
    stored = pd.read_parquet(table)
    assert len(stored) == 16 and set(stored.reference[0]) <= {
        "O",
        "B-PER",
        "I-PER",
        "B-LOC",
        "I-LOC",
    }
    right = [list(p) == list(r) for p, r in zip(stored.prediction, stored.reference, strict=True)]
    assert sum(right) > 12
    refused = command(project, *words, "+task.args.x=1").stderr
    assert "task.args.x=1: kind=tagging has no task.args" in refused
