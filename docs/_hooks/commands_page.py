"""The command-line reference: the help of every program in the repository."""

import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
URI = "reference/commands.md"
FOLDERS = ("lora_bench", "benchmarks")
PARSERS = ("Parser(", "call_hydra(", '"--help"')
SUBCOMMANDS = re.compile(r"^positional arguments:\n\s+\{([\w,-]+)\}", re.MULTILINE)
INTRO = """\
# Command line

The `--help` output of every program. An error is reported in one line, with a non-zero exit status.
"""


def pages() -> dict[str, str]:
    """Address -> Markdown."""
    with ThreadPoolExecutor() as pool:
        return {URI: "\n".join([INTRO, *pool.map(_section, programs().items())])}


def programs() -> dict[str, list[str]]:
    """The command -> the process behind it, for each program."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for name, point in project.get("scripts", {}).items():
        module, _, function = point.partition(":")
        code = f"import sys, {module} as m; sys.argv[0] = {name!r}; m.{function}()"
        found[name] = ["-c", code]
    for path in (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))):
        text = path.read_text()  # a process that a program starts has no help
        if "\nif __name__ ==" in text and any(parser in text for parser in PARSERS):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(parts).removesuffix(".__main__")
            found[f"python -m {module}"] = ["-m", module]
    return found


def _section(program: tuple[str, list[str]]) -> str:
    name, process = program
    text = _help(process)
    sections = [_block(f"## {name}", text)]
    for listed in SUBCOMMANDS.findall(text):
        sections += [_block(f"### {name} {c}", _help([*process, c])) for c in listed.split(",")]
    return "\n".join(sections)


def _block(heading: str, text: str) -> str:
    return f"{heading}\n\n```text\n{text.strip()}\n```\n"


def _help(process: list[str]) -> str:
    """What a program prints for ``--help``.

    Raises:
        RuntimeError: it fails, or prints nothing.
    """
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *process, "--help"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{' '.join(process)} --help: exit {done.returncode}: {done.stderr}")
    return done.stdout
