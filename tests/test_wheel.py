"""The wheel, installed into its own environment and used from an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from lora_bench import record
from lora_bench.presets import CONF

from .helpers import TASKS, write_official
from .test_contributing import block

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
SMALL = ["model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1"]


class Installed:
    """An environment with the wheel, and the dependencies of the tests' own environment.

    Args:
        folder: folder for the environment and an empty working folder.
    """

    def __init__(self, folder: Path):
        self.folder, self.work = folder / "environment", folder / "work"
        self.work.mkdir()
        venv.create(self.folder, with_pip=False)
        (site,) = self.folder.glob("lib/python*/site-packages")
        # Folders that a .pth file names are searched, but their own .pth files are not read: the
        # checkout, which is installed there as editable, stays invisible.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def install(self, source: Path) -> None:
        """Install a wheel or a project, without its dependencies."""
        python = str(self.folder / "bin" / "python")
        options = [
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
            "--ignore-installed",
        ]
        words = [sys.executable, "-m", "pip", "--python", python, "install", *options, str(source)]
        subprocess.run(words, check=True, cwd=self.work, env=environment())

    def __call__(self, *words: str, program: str = "lora-bench") -> subprocess.CompletedProcess:
        command = [str(self.folder / "bin" / program), *words]
        return subprocess.run(
            command, cwd=self.work, env=environment(), capture_output=True, text=True
        )


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    words = [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)]
    subprocess.run(words, check=True, cwd=folder, env=environment())
    (found,) = folder.glob("lora_bench-*.whl")
    return found


@pytest.fixture
def installed(wheel, tmp_path) -> Installed:
    made = Installed(tmp_path)
    made.install(wheel)
    return made


def good(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_preset_is_in_the_wheel(installed):
    code = (
        "import lora_bench.presets as p; print(p.CONF, *sorted(p.CONF.rglob('*.yaml')), sep='\\n')"
    )
    conf, *found = good(installed("-c", code, program="python")).splitlines()
    assert Path(conf).is_relative_to(installed.folder)
    here = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*.yaml"))
    assert [str(Path(path).relative_to(conf)) for path in found] == here


def test_the_commands_work_from_an_empty_folder(installed):
    """A run, a sweep, a report, a data check and a conversion."""
    assert "cola" in good(installed(*SMALL))
    swept = installed("sweep", *SMALL, "method.rank=2,4", "task=stsb")
    assert good(swept).count("pearson") == 2 and "2 of 2 runs done, 0 to do" in swept.stderr
    assert "STS-B<br>Pearson" in good(installed("report"))
    page = Path(good(installed("report", "page")).strip())
    assert (installed.work / page).read_text().startswith("<!")
    write_official(installed.work / "glue", TASKS["rte"])
    assert "RTE/train.tsv" in good(installed("data", "check", "glue", "--tokenizer", "random:tiny"))
    run = next((installed.work / "outputs" / "runs" / "cola").iterdir())
    assert '"rank": 8' in good(installed("checkpoint", "inspect", str(run)))
    good(installed("checkpoint", "convert", str(run), "--to", "peft", "--out", "peft"))
    assert (installed.work / "peft" / "adapter_config.json").is_file()
    again = installed(*SMALL)
    assert again.returncode == 0 and "already done" in again.stderr
    refused = installed("method.rank=-1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "error: method.rank=-1: must be 1 or more (set by the command line)\n"


def test_tuned_rates_lie_in_the_working_folder(installed):
    """An installed package is not written to."""
    small = ["recipe=tuned", "task=stsb", "model=tiny", "data.toy_train=32", "train.epochs=1"]
    few = ["tune.rows=8", "tune.seeds=[7]", "tune.rates=[0.001,0.01]", "tune.refine=false"]
    assert "train.lr=???: the recipe does not set it" in installed(*small).stderr
    told = good(installed("tune", *small, *few))
    (path,) = (installed.work / "conf" / "tuned").glob("*.yaml")
    assert str(path.relative_to(installed.work)) in told
    assert "pearson" in good(installed(*small))
    package = next(installed.folder.rglob("lora_bench/conf/tuned"))
    assert not (package / path.name).exists()
    assert "Learning rate" in good(installed("report", "tuning"))


PACKAGE = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "my-methods"
version = "1"

[project.entry-points."lora_bench.methods"]
mine = "my_methods:METHOD"
"""
TASK = """\
name: tickets
columns: [text]
labels: [slow, fast]
metrics: [accuracy]
local:
  files: {train: train.jsonl, validation: validation.jsonl}
  columns: {text: text}
  label: label
"""


def write_package(folder: Path) -> Path:
    """A package with a method, its preset and a task's."""
    code = block("Add a method", "python").replace("from . ", "from lora_bench.methods ")
    presets = {"method/mine.yaml": block("Add a method", "yaml"), "task/tickets.yaml": TASK}
    files = {"pyproject.toml": PACKAGE, "my_methods/__init__.py": code}
    files |= {f"my_methods/conf/{name}": text for name, text in presets.items()}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def write_tickets(folder: Path) -> None:
    folder.mkdir()
    for split, count in (("train", 32), ("validation", 16)):
        rows = [
            {"text": f"answer {i} was {name}", "label": name}
            for i in range(count // 2)
            for name in ("slow", "fast")
        ]
        lines = [json.dumps(row) for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def test_a_package_of_a_user_adds_a_method_and_presets(installed, tmp_path):
    """By the package's own presets, by a folder on the search path, by ``--config-dir``."""
    source = write_package(tmp_path / "source")
    installed.install(source)
    write_tickets(installed.work / "data")
    words = ["task=tickets", "method=mine", "model=tiny", "train.epochs=1"]
    words += ["data=local", f"data.root={installed.work}/data"]
    assert "Could not find" in installed(*words).stderr  # its presets are on no search path yet
    conf = source / "my_methods" / "conf"
    ways = [
        ["hydra.searchpath=[pkg://my_methods.conf]"],
        [f"hydra.searchpath=[file://{conf}]"],
        [f"--config-dir={conf}"],
        ["--config-dir", str(conf), "-m"],
    ]
    for seed, way in enumerate(ways):
        done = installed(*way, *words, f"seed={seed}")
        assert done.stdout.startswith("tickets-tiny-mine-"), done.stderr
    found, problems = record.read_all(installed.work / "outputs")
    assert sorted(one.seed for one in found) == [0, 1, 2, 3] and not problems
    for one in found:  # the command needs the folder of presets too
        assert "hydra.searchpath=" in one.command and "task=tickets" in one.command
    refused = installed("--config-dir=nowhere", *words)
    assert refused.stderr == "error: --config-dir=nowhere: no such folder\n"
