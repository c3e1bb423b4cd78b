"""The documentation: its commands run, its reference is complete, and the site builds."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lora_bench.compose import plan
from lora_bench.errors import UserError
from lora_bench.model.fused import SPAN
from lora_bench.overrides import setting_paths
from lora_bench.presets import CONF
from lora_bench.report import power, statistics
from lora_bench.sweep.groups import ENOUGH_EXAMPLES
from lora_bench.sweep.plan import expand

from .helpers import TASKS, command_line, write_official

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
HOOKS = ROOT / "docs" / "_hooks"
OTHERS = {"mkdocs", "pytest"}  # programs of other projects
SHOWN = ("text",)  # languages of what is no command: output, for example
TOY = ("data.toy_train=32", "data.toy_validation=16")
# What makes a run of the documentation small; a word of the command itself wins.
SMALL = {
    "lora_bench": ("model=tiny", *TOY, "train.epochs=1", "train.batch_size=16"),
    "lora_bench.studies.low_rank": ("epochs=1",),
}
CONSOLE = "lora-bench"  # whose commands are those of ``python -m``


@dataclass
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    title: str | None = None  # of a file that the reader is asked to write
    reason: str | None = None  # why it is not run

    @property
    def commands(self) -> list[list[str]]:
        """Its lines as words; a backslash joins two lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


@dataclass
class Reader:
    """Follows a page in an empty folder."""

    folder: Path
    names: dict = field(default_factory=dict)  # of the page's Python blocks

    def follow(self, block: Block) -> None:
        if block.title:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._filled(block.text))
            if path.name == "pyproject.toml":
                self._make_known()
        elif block.language == "python":
            exec(compile(block.text, "block", "exec"), self.names)
        else:
            for words in block.commands:
                self.run(words)

    def run(self, words: list[str]) -> None:
        module, *rest = ["lora_bench.cli", *words[1:]] if words[0] == CONSOLE else words[2:]
        known = words[0] == CONSOLE or words[:2] == ["python", "-m"]
        assert known, f"{shlex.join(words)}: mark it, or run it here"
        arguments = [self._filled(word) for word in rest]
        arguments += small(module, arguments)
        done = command_line(*arguments, module=module)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"

    def _filled(self, text: str) -> str:
        """A text with the folders of this reader, and the key of the first run, put in."""
        text = text.replace("/path/to", str(self.folder / "given"))
        before, marked, after = text.partition("<key>")
        if not marked:
            return text
        folder = (
            self.folder / before.rpartition("=")[2]
        )  # of init_from=outputs/runs/mnli/<key>, too
        return before + min(path.name for path in folder.iterdir()) + after

    def _make_known(self) -> None:
        """What ``pip install -e .`` does for entry points."""
        command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "egg_info"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)


def blocks(path: Path) -> list[Block]:
    text = path.read_text()
    names = ("language", "text", "title", "reason")
    found = [Block(*(match[name] for name in names)) for match in FENCE.finditer(text)]
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE)), path
    return found


def small(module: str, words: list[str]) -> list[str]:
    """Words that make a run small, but for settings that the command chooses itself."""
    if module == "lora_bench.cli" and (words[0] in ("run", "sweep") or "=" in words[0]):
        module = "lora_bench"
    given = {word.lstrip("+").partition("=")[0] for word in words}
    chosen = [word for word in SMALL.get(module, ()) if word.partition("=")[0] not in given]
    if "model.source" in given:
        chosen.remove("model=tiny")
    if "data=local" in words or "data=hub" in words:
        chosen = [word for word in chosen if word not in TOY]
    return chosen


def squad(split: str, articles: int = 4) -> dict:
    """Made-up questions in the official layout, every second one without an answer."""

    def question(article: int, number: int) -> dict:
        answered = number % 2 == 0
        answers = [{"text": f"Ann {article}", "answer_start": 0}] if answered else []
        identity = f"{split}-{article}-{number}"
        asked = {"id": identity, "question": "Who was there?", "answers": answers}
        return {**asked, "is_impossible": not answered}

    def article(number: int) -> dict:
        questions = [question(number, i) for i in range(4)]
        passage = {"context": f"Ann {number} was there, and nobody else came.", "qas": questions}
        return {"title": f"{split} {number}", "paragraphs": [passage]}

    return {"version": "v2.0", "data": [article(number) for number in range(articles)]}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def given(tmp_path, base) -> Path:
    """The files that a reader is expected to have: made-up official data and a model."""
    folder = tmp_path / "reader" / "given"
    for task in TASKS.values():
        if task.kind == "text":
            splits = ["train", *task.validation, *task.submission]
            write_official(folder / "glue_data", task, splits, count=20)
    (folder / "squad").mkdir()
    for split in ("train", "dev"):
        (folder / "squad" / f"{split}-v2.0.json").write_text(json.dumps(squad(split)))
    base.rename(folder / "model")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_command_of_a_page_runs(path, given, monkeypatch):
    """In order, in one folder, with a tiny model and little data. A page marks what it skips."""
    monkeypatch.chdir(given.parent)
    monkeypatch.syspath_prepend(str(given.parent))
    reader = Reader(given.parent)
    for block in blocks(path):
        if block.reason is None and block.language not in SHOWN:
            reader.follow(block)


def test_every_setting_is_listed_in_the_reference_with_its_meaning(monkeypatch):
    monkeypatch.syspath_prepend(str(HOOKS))
    import settings_page

    rows = {}
    for line in settings_page.pages()[settings_page.URI].splitlines():
        if found := re.match(r'\| <span id="(.+?)"></span>', line):
            cells = re.split(r"(?<!\\)\|", line)
            rows[found[1]] = cells[4].strip()
    assert set(setting_paths()) - set(rows) == {"task.args", "method.args"} - set(rows)
    assert "method.args.lr_ratio" in rows and "task.args.stride" in rows
    assert not [path for path, meaning in rows.items() if len(meaning) < 5]
    assert "fp32 \\| bf16" in rows["precision"]  # the comment at the end of a line, and above it
    assert rows["task.local.label_values"].startswith("as the file writes them")


def test_every_preset_is_listed_in_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(str(HOOKS))
    import settings_page

    text = "".join(settings_page.pages().values())
    for path in CONF.rglob("*.yaml"):
        assert path.read_text().rstrip() in text or path.parent == CONF, path


def test_the_pages_name_programs_that_exist(monkeypatch):
    monkeypatch.syspath_prepend(str(HOOKS))
    import commands_page

    known = commands_page.programs()
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    named = {
        found for path in pages for found in re.findall(r"python -m ([\w.]+)", path.read_text())
    }
    assert {"lora_bench", "lora_bench.report", "benchmarks.speed"} <= named
    assert not [module for module in named - OTHERS if f"python -m {module}" not in known]


def test_the_pages_on_statistics_and_groups_state_the_constants_of_the_code():
    page = (ROOT / "docs/concepts/statistics.md").read_text()
    stated = (
        f"corrected p is at most {power.SIGNIFICANCE} |",
        f"{100 * power.SIGNIFICANCE:.0f} % level",
        f"in {100 * power.POWER:.0f} % of cases",
        f"BCa, {100 * statistics.CONFIDENCE:.0f} %",
        f"Beyond {statistics.EXACT_SEEDS} blocks it tries {statistics.SAMPLED_FLIPS:,} random",
    )
    assert [text for text in stated if text not in page] == []
    page = (ROOT / "docs/concepts/grouping.md").read_text()
    stated = (
        f"fill a step of {ENOUGH_EXAMPLES['cpu']} examples:",
        f"On a GPU, a step has {ENOUGH_EXAMPLES['cuda']} examples",
        f"an example of more than {SPAN:,} tokens",
    )
    assert [text for text in stated if text not in page] == []
    assert 2 / 2 ** (power.MIN_SEEDS - 1) > power.SIGNIFICANCE >= 2 / 2**power.MIN_SEEDS


PRESET_COMMANDS = [
    (path.relative_to(CONF).as_posix(), command)
    for path in sorted(CONF.rglob("*.yaml"))
    for command in re.findall(r"^# +python -m lora_bench (.+)$", path.read_text(), re.MULTILINE)
]


@pytest.mark.slow
def test_the_command_in_the_head_of_a_preset_is_accepted():
    assert len(PRESET_COMMANDS) > 30
    for preset, command in PRESET_COMMANDS:
        words = shlex.split(re.sub(r"<.+?>", "key", command))
        sweep = "-m" in words
        try:
            given = expand([word for word in words if word != "-m"], sweep=sweep)
            assert plan(given, sweep=sweep)
        except UserError as error:
            pytest.fail(f"conf/{preset}: {command}: {error}")


def test_a_broken_link_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HOOKS))
    import links

    (tmp_path / "outside.html").write_text("")
    site = tmp_path / "site"
    (site / "there").mkdir(parents=True)
    (site / "there" / "index.html").write_text('<h2 id="one">One</h2><img src="../a%20b.svg">')
    (site / "a b.svg").write_text("")
    good = (
        "there/",
        "there/#one",
        "/there/index.html#one",
        "#",
        "https://elsewhere.org/x#y",
        "mailto:x",
    )
    bad = ("nowhere/", "there/#two", "#three", "../outside.html")
    page = "".join(f'<a href="{link}">x</a>' for link in (*good, *bad))
    (site / "index.html").write_text(page)
    named = [line.split(": ")[1] for line in links.broken_links(site)]
    assert sorted(named) == sorted(bad)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_without_a_broken_link(tmp_path):
    pytest.importorskip("mkdocs")
    words = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parent.name for path in (tmp_path / "site").rglob("index.html")}
    assert {"settings", "commands", "lora", "01_lora_by_hand", "main", "own-data"} <= pages
