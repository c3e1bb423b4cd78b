"""The console command ``lora-bench``; each subcommand can also be run with ``python -m``."""

import argparse
import difflib
import importlib
import os
import shlex
import sys
from importlib.metadata import version
from typing import Any

from .program import program

# name -> module whose ``main`` runs it, words to put before the user's, help text
COMMANDS: dict[str, tuple[str, list[str], str]] = {
    "run": ("lora_bench.__main__", [], "train one method on one task (default); --help: settings"),
    "sweep": ("lora_bench.__main__", ["-m"], "train many: comma-separated values, +sweep=<name>"),
    "tune": ("lora_bench.tune.__main__", [], "find learning rates, with one budget for all"),
    "report": ("lora_bench.report.__main__", [], "tables, pictures and a page from records"),
    "items": ("lora_bench.items", [], "uncertainty from the sample of validation examples"),
    "predict": ("lora_bench.predict", [], "files for the GLUE server from finished runs"),
    "data": ("lora_bench.data.__main__", [], "describe a folder of official files"),
    "checkpoint": ("lora_bench.checkpoint.__main__", [], "inspect, convert and merge adapters"),
}
COMPLETING = "_ARGCOMPLETE"  # set by argcomplete: index of the word where the arguments begin


@program
def main() -> None:
    """Run the command that the first word names; ``run`` if it names none."""
    if COMPLETING in os.environ:
        _complete()
        return
    words = sys.argv[1:]
    first = words[0] if words else ""
    if first in ("-h", "--help"):
        print(_help())
    elif first == "--version":
        print(f"lora-bench {version('lora-bench')}")
    elif first in COMMANDS:
        _do(first, words[1:])
    elif first and "=" not in first and first[0] not in "-~":
        near = difflib.get_close_matches(first, COMMANDS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        sys.exit(f"error: {first}: {hint}must be setting=value or one of {', '.join(COMMANDS)}")
    else:
        _do("run", words)


def _do(name: str, words: list[str]) -> None:
    module, before, _ = COMMANDS[name]
    sys.argv = [sys.argv[0], *before, *words]
    importlib.import_module(module).main()


def _help() -> str:
    lines = ["usage: lora-bench [command] ...", "", "commands (--help after each shows more):"]
    lines += [f"  {name:<11} {meaning}" for name, (_, _, meaning) in COMMANDS.items()]
    examples = [
        "lora-bench task=cola method=lora method.rank=8",
        "lora-bench sweep task=cola,stsb method.rank=1,2,4,8 seed=0,1,2",
        "lora-bench report",
        'eval "$(register-python-argcomplete lora-bench)"    # completion in bash and zsh',
    ]
    return "\n".join([*lines, "", "examples:", *(f"  {line}" for line in examples)])


def _complete() -> None:
    """Print the completions at the cursor, in argcomplete's protocol."""
    import argcomplete

    before = shlex.split(os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])] + "|")[1:]
    name = before[0] if len(before) > 1 and before[0] in COMMANDS else "run"
    if name not in ("run", "sweep", "tune"):  # those take settings
        os.environ[COMPLETING] = "2"
        _do(name, [])  # completes from its own parser, and exits
    parser = argparse.ArgumentParser(add_help=False)
    known = [] if len(before) > 1 else [*COMMANDS]

    def completer(prefix: str, **_: Any) -> list[str]:
        return known + candidates(prefix)

    parser.add_argument("words", nargs="*").completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def candidates(prefix: str) -> list[str]:
    """Settings and values that complete ``prefix``.

    Args:
        prefix: as in ``tas``, ``task=c`` or ``task=cola,st``.
    """
    from .overrides import groups, setting_paths
    from .presets import CONF

    name, value_follows, value = prefix.partition("=")
    if not value_follows:
        names = [*groups(), "+sweep", "hydra/launcher", *setting_paths()]
        return [f"{name}=" for name in dict.fromkeys(names)]
    head = prefix[: len(prefix) - len(value.rpartition(",")[2])]
    presets = sorted((CONF / name.lstrip("+")).glob("*.yaml"))
    return [f"{head}{path.stem}" for path in presets if name.lstrip("+") not in ("", ".")]
