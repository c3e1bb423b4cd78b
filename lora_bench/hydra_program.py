"""What the programs that Hydra drives share: its flags, and the call of Hydra."""

import argparse
import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from .compose import hydra_reason
from .errors import UserError
from .overrides import path_of

# Flags of Hydra that would make it execute runs other than those that were checked.
REFUSED_FLAGS = {
    "config_path": "is fixed; --config-dir=folder adds presets",
    "config_name": "is fixed; --config-dir=folder adds presets",
    "package": "is not supported",
    "experimental_rerun": "is not supported; run the same command again for missing runs",
}
# Groups of presets that are chosen by the recipe: Hydra's help would list them.
NOT_CHOSEN = ("recipe_for_", "tuned:")
HELP = {"--help", "-h"}
FULL_ERROR = "HYDRA_FULL_ERROR"  # an environment variable of Hydra
ONE_OF = ("run", "multirun", "cfg", "info", "shell_completion")


def flags() -> argparse.Namespace:
    """The flags and words of the command line; a wrong flag ends the program with one line."""
    parser = get_args_parser()
    parser.error = lambda message: sys.exit(  # type: ignore[method-assign, assignment]
        f"error: {message}; flags come before settings (--hydra-help lists them)"
    )
    args = parser.parse_args()
    for flag, reason in REFUSED_FLAGS.items():
        if getattr(args, flag) is not None:
            sys.exit(f"error: --{flag.replace('_', '-')}: {reason}")
    if sum(word.startswith(("--config-d", "-cd")) for word in sys.argv[1:]) > 1:
        sys.exit("error: --config-dir: must be one folder; hydra.searchpath=[folder,...] adds more")
    chosen = [flag for flag in ONE_OF if getattr(args, flag)]
    if len(chosen) > 1:
        sys.exit(f"error: --{' and --'.join(chosen)}: choose one of them")
    if args.resolve and not (args.cfg or args.help):
        sys.exit("error: --resolve: only works with --cfg or --help")
    return args


def executes_nothing(args: argparse.Namespace) -> bool:
    """Whether the flags ask only for a text: help, the configuration, or completions."""
    return bool(args.help or args.hydra_help or args.cfg or args.info or args.shell_completion)


def check_launcher(words: Sequence[str], *, multirun: bool) -> None:
    """Refuse a launcher without a sweep: Hydra would ignore it.

    Args:
        words: words of the command line.
        multirun: whether it is a sweep (``-m``).

    Raises:
        UserError: names the word.
    """
    for word in filter(is_of_launcher, words):
        if not multirun:
            raise UserError(f"{word}: only applies to a sweep; add -m")


def is_of_launcher(word: str) -> bool:
    """Whether a word selects a launcher or is a setting of one."""
    return path_of(word).replace("/", ".").startswith("hydra.launcher")


@contextlib.contextmanager
def _short_help() -> Iterator[None]:
    """Print what is written to standard output without the groups that users do not choose."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            yield
    finally:
        lines = text.getvalue().splitlines()
        print("\n".join(line for line in lines if not line.startswith(NOT_CHOSEN)))


def call_hydra(job: Callable[[DictConfig], object], words: Sequence[str], conf: Path) -> None:
    """Let Hydra do its part; its help leaves out the presets that users do not choose.

    Args:
        job: is called for each run.
        words: flags and words, in place of those of the command line.
        conf: folder of the program's presets.

    Raises:
        UserError: says in one line what Hydra cannot do, or what the job or the launcher raised.
    """
    wanted, before = os.environ.get(FULL_ERROR), sys.argv
    os.environ[FULL_ERROR] = "1"  # raise, instead of printing several lines and exiting
    sys.argv = [sys.argv[0], *words]
    try:
        with _short_help() if HELP & set(words) else contextlib.nullcontext():
            hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()
    except Exception as error:
        if wanted:
            traceback.print_exc()
        raise UserError(hydra_reason(error)) from error
    finally:
        sys.argv = before
        if wanted is None:
            del os.environ[FULL_ERROR]
