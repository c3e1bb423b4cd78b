"""CONTRIBUTING is followed to the letter: what it says makes a new method run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_bench import record
from lora_bench.methods import Method, get_method
from lora_bench.spec import MethodSpec

ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "CONTRIBUTING.md").read_text().split("## Add a method")[1].split("\n## ")[0]
SMALL = [
    "task=cola",
    "method=mine",
    "model=tiny",
    "data.toy_train=32",
    "data.toy_validation=16",
    "train.epochs=1",
]


def block(language: str) -> str:
    """The first fenced block of that language in the section."""
    return re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)[1]


def command(folder: Path, *more: str) -> subprocess.CompletedProcess:
    folders = [f"out_dir={folder}/out", f"cache_dir={folder}/cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    arguments = [sys.executable, "-m", "lora_bench", *more, *SMALL, *folders]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project's code and presets."""
    for name in ("lora_bench", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_one_file_and_one_preset_make_a_method(project):
    assert "mine" in command(project).stderr  # not there yet
    assert not record.read_all(project)
    (project / "lora_bench" / "methods" / "mine.py").write_text(block("python"))
    (project / "conf" / "method" / "mine.yaml").write_text(block("yaml"))
    done = command(project)
    assert done.returncode == 0, done.stderr
    (finished,) = record.read_all(project / "out")
    assert finished.status == "ok" and finished.spec["method"]["name"] == "mine"
    assert (
        finished.parameters["trained"] == finished.parameters["head"]
    )  # the preset's policy, as the block says


def test_presets_may_lie_elsewhere(project):
    """For a package of one's own: the preset from a folder on the search path, single runs and sweeps alike."""
    (project / "lora_bench" / "methods" / "mine.py").write_text(block("python"))
    (project / "elsewhere" / "method").mkdir(parents=True)
    (project / "elsewhere" / "method" / "mine.yaml").write_text(block("yaml"))
    assert "mine" in command(project).stderr
    for more in ([], ["-m", "seed=1,2"]):
        done = command(project, *more, f"hydra.searchpath=[file://{project}/elsewhere]")
        assert done.returncode == 0, done.stderr
    assert [r.spec["seed"] for r in record.read_all(project / "out")] == [0, 1, 2]


def test_an_entry_point_is_a_method(monkeypatch):
    class Mine(Method):
        pass

    class Point:
        name = "mine"

        def load(self):
            return Mine

    monkeypatch.setattr(
        "lora_bench.methods.entry_points",
        lambda group: [Point()] if group == "lora_bench.methods" else [],
    )
    assert isinstance(get_method(MethodSpec(name="mine")), Mine)
