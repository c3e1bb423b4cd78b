"""Every program reports a mistake in one line, and goes on when its output is closed."""

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from lora_bench import program, record
from lora_bench.cli import COMMANDS
from lora_bench.errors import counted
from lora_bench.report.__main__ import READERS

from .helpers import command_line, mostly_slow
from .report_records import made_up

PACKAGE = Path(__file__).parent.parent / "lora_bench"
PROGRAMS = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__main__")
    for path in PACKAGE.rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
MAINS = [*PROGRAMS, "lora_bench.cli"]
SMALL = ["model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1"]


@contextlib.contextmanager
def closed_pipe():
    """A stream like that of ``... | head -c 0``."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        yield stream


@contextlib.contextmanager
def full_disk():
    with open("/dev/full", "w", encoding="utf-8") as stream:
        yield stream


LOST = {closed_pipe: "", full_disk: "error: standard output: cannot be written (No space left on"}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("module", mostly_slow(MAINS, ["lora_bench"]))
def test_help_that_is_not_read_ends_quietly(module, lost):
    with lost() as stream:
        done = command_line("--help", module=module, out=stream)
    assert done.returncode == (1 if LOST[lost] else program.CLOSED)
    assert done.stderr.startswith(LOST[lost]) and done.stderr.count("\n") == bool(LOST[lost])


KEPT = "interrupted: finished runs are kept; run the same command again for the rest\n"


@pytest.mark.parametrize(
    ("place", "line"),
    [("lora_bench.__main__.plan", KEPT), ("lora_bench.predict._read_run", "interrupted\n")],
)
def test_an_interrupt_at_any_moment_gives_a_one_line_error(monkeypatch, place, line):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    done = command_line("runs", module=".".join(place.split(".")[:-1]).removesuffix(".__main__"))
    assert done.returncode == 1 and done.stderr == line


def test_the_console_command_reaches_every_program_but_the_study():
    named = {module.removesuffix(".__main__") for module, _, _ in COMMANDS.values()}
    assert named == {module for module in PROGRAMS if ".studies." not in module}


@pytest.mark.parametrize("multirun", [False, True])
def test_a_run_that_nobody_reads_is_finished(tmp_path, multirun):
    words = ["-m", "seed=0,1"] if multirun else []
    folders = [f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
    with closed_pipe() as stream:
        words = [*words, *SMALL, *folders]
        done = command_line(*words, out=stream)
    assert done.returncode == program.CLOSED and "roke" not in done.stderr
    assert "Error" not in done.stderr
    found, _ = record.read_all(tmp_path / "out")
    assert [one.status for one in found] == ["ok"] * (1 + multirun)


def test_a_failure_keeps_its_own_exit_status():
    with closed_pipe() as stream:
        words = ["--runs", "nowhere"]
        done = command_line(*words, module="lora_bench.report", out=stream)
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_an_ascii_terminal_shows_what_it_cannot_print_as_a_code(tmp_path):
    made_up(tmp_path)
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(out):
        from lora_bench.report.__main__ import main

        main(["--runs", str(tmp_path), "--format", "markdown"])
    out.flush()
    assert b"\\xb1 standard deviation" in out.buffer.getvalue()


def test_a_locale_without_unicode_reads_and_writes_the_same_files(tmp_path):
    made_up(tmp_path, "seed=0", error="é", status="failed")
    made_up(tmp_path, "seed=1")
    words = [sys.executable, "-m", "lora_bench.report", "--runs", str(tmp_path), "--published"]
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run(words, capture_output=True, env={**os.environ, **plain})
    assert done.returncode == 0 and b"\\xb1 standard deviation" in done.stdout, done.stderr
    assert "± standard" in (tmp_path / "table_last.md").read_text(encoding="utf-8")


def test_a_file_that_nothing_has_named_gives_a_one_line_error(tmp_path):
    @program.program
    def main():
        (tmp_path / "nowhere").read_bytes()

    with pytest.raises(SystemExit, match=f"^error: {tmp_path}/nowhere: No such file or directory$"):
        main()


OPENS_TEXT = {"open", "read_text", "write_text"}


def without_encoding(path: Path):
    """Lines of a file that open a text file in the locale's encoding."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        binary = any("b" in mode for mode in modes if isinstance(mode, str) and len(mode) < 4)
        system = ast.unparse(node.func) == "os.open"
        told = any(keyword.arg == "encoding" for keyword in node.keywords)
        if name in OPENS_TEXT and not (binary or system or told):
            yield node.lineno


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_text_files_are_utf_8_in_every_locale(path):
    assert not list(without_encoding(path))


def occupied(folder: Path) -> dict[str, Path]:
    """Places where no folder can be created or written to."""
    (folder / "afile").touch()
    (folder / "dangling").symlink_to("nowhere/at/all")
    (folder / "loop").symlink_to("loop")
    names = {"afile": "afile", "dangling": "dangling", "loop": "loop", "long": "n" * 300}
    return {kind: folder / name for kind, name in names.items()}


PLACES = ("afile", "dangling", "loop", "long")
WRITERS = sorted(name for name in READERS["out"] if name != "export")


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("command", mostly_slow(WRITERS, ["plots", "tables"]))
def test_a_folder_that_no_report_can_be_written_to_gives_a_one_line_error(tmp_path, command, kind):
    runs = tmp_path / "runs"
    made_up(runs)
    words = [str(runs), str(runs)] if command == "compare" else ["--runs", str(runs)]
    words = ["--runs", str(runs)] if command == "tuning" else words
    out = occupied(tmp_path)[kind]
    done = command_line(command, *words, "--out", str(out), module="lora_bench.report")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: --out {out}: cannot be written (")


@pytest.mark.parametrize("kind", ["folder", *PLACES])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_that_cannot_be_exported_gives_a_one_line_error(tmp_path, kind, suffix):
    made_up(tmp_path / "runs")
    places = {**occupied(tmp_path), "folder": tmp_path}
    out = places[kind] / f"x{suffix}"
    if kind == "folder":
        out.mkdir()
    words = ["export", "--runs", str(tmp_path / "runs"), "--out", str(out)]
    done = command_line(*words, module="lora_bench.report")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: --out {out}: cannot be written (")


@pytest.mark.parametrize("kind", ["below", "rather long", *PLACES])
@pytest.mark.parametrize("command", [["merge"], ["convert", "--to", "peft"]])
def test_an_adapter_that_cannot_be_written_is_reported_before_it_is_read(tmp_path, command, kind):
    places = occupied(tmp_path)
    places |= {"below": tmp_path / "afile" / "x", "rather long": tmp_path / ("n" * 240)}
    words = [command[0], "nowhere", *command[1:], "--out", str(places[kind])]
    done = command_line(*words, module="lora_bench.checkpoint")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: --out {places[kind]}: ")


LONG = "n" * 300


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("lora_bench.checkpoint", ["inspect", LONG]),
        ("lora_bench.checkpoint", ["merge", LONG, "--out", "OUT"]),
        ("lora_bench.checkpoint", ["convert", LONG, "--to", "peft", "--out", "OUT"]),
        ("lora_bench.data", ["check", LONG]),
        ("lora_bench.data", ["check", ".", "--tokenizer", LONG]),
        ("lora_bench.items", [LONG]),
        ("lora_bench.predict", [LONG]),
        ("lora_bench", [f"--config-dir={LONG}"]),
        ("lora_bench", ["data=local", f"data.root={LONG}"]),
        ("lora_bench", ["model=tiny", f"model.source={LONG}"]),
        ("lora_bench", ["model=tiny", f"init_from={LONG}"]),
    ],
)
def test_a_name_that_is_too_long_gives_a_one_line_error(tmp_path, module, words):
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    done = command_line(*words, module=module)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert LONG in done.stderr and not (tmp_path / "out").exists()


def trees() -> list[tuple[Path, list[ast.AST]]]:
    return [(path, list(ast.walk(ast.parse(path.read_text())))) for path in PACKAGE.rglob("*.py")]


def nouns(nodes: list[ast.AST]) -> set[str]:
    """What is counted with ``counted``."""
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    named = [node.args[1] for node in calls if getattr(node.func, "id", "") == "counted"]
    return {noun.value.split()[-1] for noun in named if isinstance(noun, ast.Constant)}


def test_a_count_in_a_message_agrees_with_its_noun():
    """Every message is found here: ``{n} runs`` reads "1 runs" for one."""
    assert [counted(n, "training row") for n in (0, 1, 2000)] == [
        "0 training rows", "1 training row", "2,000 training rows",
    ]  # fmt: skip
    found = trees()
    known = "|".join(sorted(set.union(*(nouns(nodes) for _, nodes in found))))
    plural = re.compile(rf" (?!over |have )(?:[a-z-]+ )?(?:{known})s\b(?!=)")
    for path, nodes in found:
        for text in (node for node in nodes if isinstance(node, ast.JoinedStr)):
            for value, after in pairwise(text.values):
                if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                    assert not plural.match(after.value), f"{path.name}: {ast.unparse(text)}"
