"""Command line: Hydra -> Spec -> run. ``python -m lora_bench --help`` shows the options."""

import sys
from collections.abc import Sequence

from .compose import completed, plan
from .errors import UserError
from .hydra_program import call_hydra, check_launcher, executes_nothing, flags
from .overrides import command_of, is_search, parsed, path_of, report_replaced
from .presets import CONF
from .program import program
from .search_path import with_presets_of
from .sweep.groups import check_group
from .sweep.plan import Sweep, expand
from .sweep.search import Search
from .sweep.session import Session, check_folders, interruptible
from .training.prepared import DataCache, prepare


@program
@interruptible()
def main() -> None:
    """Check the whole command, then execute its runs; exit with an error if any failed."""
    args = flags()
    if executes_nothing(args):
        call_hydra(lambda config: None, sys.argv[1:], CONF)
        return
    words = with_presets_of(args.config_dir, args.overrides)
    report_replaced(words)
    overrides = expand(words, sweep=args.multirun)
    check_launcher(overrides, multirun=args.multirun)
    if is_search(overrides):
        _search(overrides, multirun=args.multirun)
        return
    planned = plan(overrides, sweep=args.multirun)
    specs = [spec for _, spec in planned]
    check_group(specs, multirun=args.multirun)
    check_folders(specs)
    cache = DataCache()
    runs = [prepare(spec, cache, command_of(words)) for words, spec in planned]
    sweep = Sweep(runs)
    if args.multirun:
        sweep.write_plans(command_of(["-m", *overrides]))
        print(f"sweep: {sweep.progress()}", file=sys.stderr)
    session = Session(sweep, cache, multirun=args.multirun, launched=_launched(overrides))
    session.report_done()

    def launch(groups: Sequence[int]) -> None:
        mode = ["-m"] if args.multirun else []
        call_hydra(session.job, [*mode, *session.words(overrides, groups)], CONF)

    session.run_all(launch)
    session.end()


def _search(overrides: list[str], *, multirun: bool) -> None:
    """Let another Hydra sweeper choose the runs; the settings of each run are checked then."""
    if not multirun:
        raise UserError("hydra/sweeper: only applies to a sweep; add -m")
    for word in overrides:
        override = parsed(word, searching=True)
        if override.key_or_group == "group" and override.value() is not None:
            raise UserError(f"{word}: has no effect in a search, which trains one run at a time")
    call_hydra(Search().job, ["-m", *completed(overrides)], CONF)


def _launched(overrides: Sequence[str]) -> bool:
    """Whether a launcher executes the runs in other processes; Hydra's basic one does not."""
    chosen = [word.partition("=")[2] for word in overrides if path_of(word) == "hydra/launcher"]
    return bool(chosen) and chosen[-1] != "basic"


if __name__ == "__main__":
    main()
