"""Command line: Hydra -> Spec -> run. ``python -m lora_bench --help`` shows the options."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from . import record as records
from .compose import completed, hydra_reason, plan, with_presets_of
from .overrides import command_of, is_search, parsed, path_of
from .presets import CONF
from .program import program
from .spec import SpecError, UserError
from .sweep.plan import Sweep, expand
from .sweep.search import Search
from .sweep.session import Session, check_folders, interruptible
from .training.prepared import DataCache, prepare

# Flags of Hydra that would make it execute runs other than those that were checked.
REFUSED_FLAGS = {
    "config_path": "is fixed; --config-dir=folder adds presets",
    "config_name": "is fixed; --config-dir=folder adds presets",
    "package": "is not supported",
    "experimental_rerun": "is not supported; run the same command again for missing runs",
}
FULL_ERROR = "HYDRA_FULL_ERROR"  # an environment variable of Hydra
ONE_OF = ("run", "multirun", "cfg", "info", "shell_completion")


@program
def main() -> None:
    """Check the whole command, then execute its runs; exit with an error if any failed."""
    args = _arguments()
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        with interruptible():
            _hydra(lambda config: None, sys.argv[1:])
        return
    words = with_presets_of(args.config_dir, args.overrides)
    overrides = expand(words, sweep=args.multirun)
    _check_launcher(overrides, multirun=args.multirun)
    if is_search(overrides):
        _search(overrides, multirun=args.multirun)
        return
    cache = DataCache()
    runs = [
        prepare(spec, cache, command_of(words))
        for words, spec in plan(overrides, sweep=args.multirun)
    ]
    if not args.multirun and runs[0].spec.group is not None:
        raise SpecError("group", runs[0].spec.group, "only applies to a sweep; add -m")
    check_folders([run.spec for run in runs])
    sweep = Sweep(runs)
    if args.multirun:
        command = command_of(["-m", *overrides])
        records.write_plan(Path(runs[0].spec.out_dir), command, list(sweep.runs))
        print(f"sweep: {sweep.progress()}", file=sys.stderr)
    session = Session(sweep, cache, multirun=args.multirun, launched=_launched(overrides))
    session.tell_done()

    def launch(groups: Sequence[int]) -> None:
        flags = ["-m"] if args.multirun else []
        _hydra(session.job, [*flags, *session.words(overrides, groups)])

    with interruptible():
        session.carry_out(launch)
    session.end()


def _search(overrides: list[str], *, multirun: bool) -> None:
    """Let another Hydra sweeper choose the runs; the settings of each run are checked then."""
    if not multirun:
        raise UserError("hydra/sweeper: only applies to a sweep; add -m")
    for word in overrides:
        parsed(word, searching=True)
    with interruptible():
        _hydra(Search().job, ["-m", *completed(overrides)])


def _check_launcher(overrides: Sequence[str], *, multirun: bool) -> None:
    """Refuse a launcher without a sweep: Hydra would ignore it.

    Raises:
        UserError: names the word.
    """
    for word in overrides:
        if not multirun and path_of(word).replace("/", ".").startswith("hydra.launcher"):
            raise UserError(f"{word}: only applies to a sweep; add -m")


def _launched(overrides: Sequence[str]) -> bool:
    """Whether a launcher executes the runs in other processes; Hydra's basic one does not."""
    chosen = [word.partition("=")[2] for word in overrides if path_of(word) == "hydra/launcher"]
    return bool(chosen) and chosen[-1] != "basic"


def _arguments() -> argparse.Namespace:
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


def _hydra(job: Callable[[DictConfig], object], words: Sequence[str]) -> None:
    """Let Hydra do its part, with ``words`` as the command line.

    Raises:
        UserError: says in one line what Hydra cannot do.
        Exception: raised by a launcher.
    """
    wanted, before = os.environ.get(FULL_ERROR), sys.argv
    os.environ[FULL_ERROR] = "1"  # raise, instead of printing several lines and exiting
    sys.argv = [sys.argv[0], *words]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except Exception as error:
        if wanted:
            traceback.print_exc()
        raise UserError(hydra_reason(error)) from error
    finally:
        sys.argv = before
        if wanted is None:
            del os.environ[FULL_ERROR]


if __name__ == "__main__":
    main()
