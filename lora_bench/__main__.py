"""Command line: Hydra -> Spec -> run. ``python -m lora_bench --help`` shows the options."""

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from . import record as records
from .compose import completed, plan, validate
from .presets import CONF
from .spec import NOT_RECORDED, Spec, SpecError, UserError
from .sweep.plan import Sweep, expand
from .training.prepared import DataCache, Run, prepare
from .training.run import Outcome, announce, execute


class Session:
    """The runs of one command, as Hydra's launcher asks for them one by one.

    Args:
        sweep: what the command asks for.
        cache: the data that its runs share.
        multirun: whether to print the progress after each run.
    """

    def __init__(self, sweep: Sweep, cache: DataCache, *, multirun: bool):
        self.sweep, self.cache, self.multirun = sweep, cache, multirun
        self.errors = 0
        self.told: set[str] = set()  # keys of the runs whose outcome was printed

    def job(self, config: DictConfig) -> None:
        """Do the group of one run. A failure is in the run's record; a sweep goes on."""
        planned = prepare(validate(Spec.from_config(config)), self.cache)
        if planned.key in self.told:
            return
        in_turn = HydraConfig.get().launcher._target_.endswith(".BasicLauncher")
        own = self.sweep.runs[planned.key]
        group = self.sweep.group_of(own) if in_turn else [own]
        try:
            outcomes = execute(group)
        except Exception as error:  # a failure could not be recorded
            self._tell_error(error, own)
            return
        for outcome in outcomes:
            self._tell(outcome)
        if self.multirun and planned.key not in self.sweep.done:
            self.sweep.refresh()
            print(f"[{self.sweep.progress()}]", file=sys.stderr)

    def _tell(self, outcome: Outcome) -> None:
        key = outcome.planned.key
        self.told.add(key)
        if outcome.error is not None:
            self._tell_error(outcome.error, outcome.planned)
        else:
            announce(outcome.record, outcome.folder, skipped=key in self.sweep.done)

    def _tell_error(self, error: Exception, planned: Run) -> None:
        self.errors += 1
        print(f"error: {_told(error, planned)}", file=sys.stderr)


def main() -> None:
    """Check the whole command, then do its runs; exit with an error if any of them failed."""
    args = get_args_parser().parse_args()
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        _hydra(lambda config: None)
        return
    try:
        overrides = expand(args.overrides, sweep=args.multirun)
        cache = DataCache()
        runs = [
            prepare(spec, cache, _command(words))
            for words, spec in plan(overrides, sweep=args.multirun)
        ]
        if not args.multirun and runs[0].spec.group is not None:
            raise SpecError("group", runs[0].spec.group, "is for a sweep; add -m")
        sweep = Sweep(runs)
    except UserError as error:
        sys.exit(f"error: {error}")
    # Hydra reads the command line itself: it gets the sweep presets expanded
    flags = [word for word in sys.argv[1:] if word not in args.overrides]
    sys.argv = [sys.argv[0], *flags, *completed(overrides)]
    if args.multirun:
        print(f"sweep: {sweep.progress()}", file=sys.stderr)
        command = _command(["-m", *overrides])
        records.write_plan(Path(runs[0].spec.out_dir), command, list(sweep.runs))
    session = Session(sweep, cache, multirun=args.multirun)
    try:
        _hydra(session.job)
    except KeyboardInterrupt:
        sys.exit("interrupted: finished runs are kept, the same command does what is missing")
    _end(session)


def _told(error: Exception, planned: Run) -> str:
    """One line: a user's mistake by itself, a failure with the place of its traceback."""
    if isinstance(error, UserError):
        return str(error)
    reason = f"{type(error).__name__}: {error}"
    return f"{planned.key} failed: {reason} (traceback: {planned.folder / 'traceback.txt'})"


def _hydra(job) -> None:  # type: ignore[no-untyped-def]
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()


def _command(words: Sequence[str]) -> str:
    """A command line without folders of this machine."""
    portable = [word for word in words if word.split("=")[0] not in NOT_RECORDED]
    return " ".join(["python -m lora_bench", *portable])


def _end(session: Session) -> None:
    """Exit with an error, and the reason of each failure, unless every run has a good record."""
    sweep = session.sweep
    sweep.refresh()
    bad = [key for key in sweep.runs if key not in sweep.done]
    if bad and len(sweep.runs) > 1:
        reasons = [f"  {key}: {_reason(sweep, key)}" for key in bad]
        sys.exit("\n".join([f"error: {len(bad)} of {len(sweep.runs)} runs failed:", *reasons]))
    if bad or session.errors:
        sys.exit(1)


def _reason(sweep: Sweep, key: str) -> str:
    record = sweep.failed.get(key)
    return record.error or "" if record else "left no record"


if __name__ == "__main__":
    main()
