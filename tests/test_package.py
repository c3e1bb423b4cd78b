"""The console command, and what the package contains."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lora_bench import cli
from lora_bench.overrides import groups, setting_paths
from lora_bench.presets import CONF

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def called(monkeypatch, *words: str) -> tuple[str, list[str]]:
    """The module whose main a command line calls, and what it finds in ``sys.argv``."""
    seen: list[tuple[str, list[str]]] = []

    class Module:
        def __init__(self, name):
            self.main = lambda: seen.append((name, sys.argv[1:]))

    monkeypatch.setattr(sys, "argv", ["lora-bench", *words])
    monkeypatch.setattr(cli.importlib, "import_module", Module)
    cli.main()
    (found,) = seen
    return found


@pytest.mark.parametrize(
    "words", [[], ["task=cola"], ["-m", "seed=0,1"], ["+sweep=ranks"], ["~method.args.x"]]
)
def test_a_command_line_without_a_command_is_a_run(monkeypatch, words):
    assert called(monkeypatch, *words) == ("lora_bench.__main__", words)
    assert called(monkeypatch, "run", *words) == ("lora_bench.__main__", words)
    assert called(monkeypatch, "sweep", *words) == ("lora_bench.__main__", ["-m", *words])


@pytest.mark.parametrize("name", [n for n in cli.COMMANDS if n not in ("run", "sweep", "tune")])
def test_every_other_command_answers_for_itself(monkeypatch, capsys, name):
    module, _, _ = cli.COMMANDS[name]
    assert called(monkeypatch, name, "a", "--b") == (module, ["a", "--b"])
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["lora-bench", name, "--help"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0 and capsys.readouterr().out.startswith("usage: ")


def test_help_and_version_and_a_wrong_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lora-bench", "--help"])
    cli.main()
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)
    monkeypatch.setattr(sys, "argv", ["lora-bench", "--version"])
    cli.main()
    assert capsys.readouterr().out == f"lora-bench {PROJECT['version']}\n"
    monkeypatch.setattr(sys, "argv", ["lora-bench", "reprot"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert str(end.value).startswith("error: reprot: did you mean report? must be setting=value")


def completions(line: str, tmp_path: Path) -> list[str]:
    """The completions for a shell when Tab is pressed at the end of ``line``."""
    found = tmp_path / "completions"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(found),
        "_ARGCOMPLETE_COMP_WORDBREAKS": "\"'><=;|&(:",  # bash's
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    code = "from lora_bench.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, check=True)
    return [word.strip() for word in found.read_text().split("\n")]


@pytest.mark.slow
def test_a_shell_completes_commands_groups_presets_settings_and_flags(tmp_path):
    first = completions("lora-bench ", tmp_path)
    assert {*cli.COMMANDS, *(f"{group}=" for group in groups())} <= {*first}
    assert {f"{path}=" for path in setting_paths()} <= {*first}
    assert "report" not in completions("lora-bench sweep ", tmp_path)
    assert completions("lora-bench rep", tmp_path) == ["report"]
    tasks = sorted(path.stem for path in CONF.glob("task/*.yaml"))
    # bash takes what follows = as a word of its own
    assert completions("lora-bench task=", tmp_path) == tasks
    assert completions("lora-bench run seed=1 task=cola,st", tmp_path) == ["cola,stsb"]
    assert completions("lora-bench sweep +sweep=rank", tmp_path) == ["ranks", "rank_alpha"][::-1]
    assert completions("lora-bench report --pro", tmp_path) == ["--protocol"]
    assert completions("lora-bench report --protocol ", tmp_path) == ["last", "best"]
    assert completions("lora-bench checkpoint conv", tmp_path) == ["convert"]
