"""Command line of the study: Hydra -> settings -> run -> record. ``--help`` shows the options."""

import sys
from dataclasses import asdict
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ... import record as records
from ...compose import check_same
from ...errors import counted
from ...hydra_program import call_hydra, executes_nothing, flags
from ...overrides import command_of
from ...plans import write_plan
from ...program import program
from ...record import Record
from ...search_path import with_presets_of
from .compose import CONF, MODULE, command, from_config, plan, without_rank
from .run import Run, execute, prepare

BASELINE = "full"  # of the tables after a sweep


class Command:
    """The runs of one command, as Hydra's launcher asks for them one by one.

    Args:
        runs: the runs that the command asks for; duplicates are executed once.
        sweep: whether it is a sweep.

    Raises:
        UserError: runs differ only in settings that change no score, so they are the same run; or
            the record of a run cannot be read.
    """

    def __init__(self, runs: list[Run], *, sweep: bool):
        self.runs: dict[str, Run] = {}
        for run in runs:
            first = self.runs.setdefault(run.key, run)
            check_same(f"the run {run.key}", asdict(first.settings), asdict(run.settings))
        self.sweep = sweep
        self.met: set[str] = set()  # full-rank layers recur with each rank
        self.found()  # inside a job, Hydra would print a traceback

    def found(self) -> dict[str, Record | None]:
        """The record of each run by its key."""
        return {key: records.find(r.out_dir, r.identity)[1] for key, r in self.runs.items()}

    def job(self, config: DictConfig) -> None:
        """Execute one run. A failure is in its record; a sweep continues."""
        settings = from_config(config)
        settings = without_rank(settings) if self.sweep else settings
        (run,) = (run for run in self.runs.values() if run.settings == settings)
        if run.key in self.met:
            return
        self.met.add(run.key)
        folder, before = records.find(run.out_dir, run.identity)
        record = execute(run, command(list(HydraConfig.get().overrides.task), settings))
        _announce(record, folder, skipped=before is not None and before.status == "ok")

    def end(self) -> None:
        """Exit with an error and the reason for each failure, unless every run is finished."""
        found = self.found()
        bad = {key: r for key, r in found.items() if r is None or r.status != "ok"}
        if bad:
            reasons = [f"  {key}: {r.error if r else 'left no record'}" for key, r in bad.items()]
            count = f"{len(bad)} of {counted(len(found), 'run')}"
            sys.exit("\n".join([f"error: {count} failed:", *reasons]))


@program
def main() -> None:
    """Check the whole command, execute its runs, and show the results after a sweep."""
    args = flags()
    if executes_nothing(args):
        call_hydra(lambda config: None, sys.argv[1:], CONF)
        return
    words = with_presets_of(args.config_dir, args.overrides)
    doing = Command(prepare(plan(words, sweep=args.multirun)), sweep=args.multirun)
    if args.multirun:
        text = command_of(["-m", *words], MODULE)
        for out_dir in {run.out_dir for run in doing.runs.values()}:
            write_plan(out_dir, text, list(doing.runs))
        print(f"sweep: {counted(len(doing.runs), 'run')}", file=sys.stderr)
    try:
        call_hydra(doing.job, ["-m", *words] if args.multirun else words, CONF)
    except KeyboardInterrupt:
        sys.exit("interrupted: finished runs are kept; run the same command again for the rest")
    doing.end()
    if args.multirun:
        show({run.out_dir for run in doing.runs.values()})


def _announce(record: Record, folder: Path, *, skipped: bool) -> None:
    """Print one line: the run, its scores, its folder; or why it failed."""
    if record.last is None:
        print(f"error: {record.key}: {record.error} (traceback in {folder})", file=sys.stderr)
        return
    accuracy = 100 * record.last["scores"]["accuracy"]
    verb = "already done" if skipped else f"trained in {record.train_seconds:.1f} s"
    out = sys.stderr if skipped else sys.stdout
    print(f"{record.key}: accuracy {accuracy:.1f} ({verb}; {folder})", file=out)


def show(folders: set[Path]) -> None:
    """Show the report's tables and pictures of everything in these folders.

    Args:
        folders: folders with runs.
    """
    from ...report.__main__ import main as report

    for folder in folders:
        report(["--runs", str(folder)], BASELINE)
        report(["plots", "--runs", str(folder)])


if __name__ == "__main__":
    main()
