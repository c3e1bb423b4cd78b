"""Runs from their data to their records: see ``execute``, and ``Member`` for the parts of a run."""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import record as records
from ..compose import validate
from ..record import Record
from ..spec import NOT_RECORDED, Spec, UserError
from .compatible import shared_settings
from .prepared import DataCache, Run, prepare

# torch and transformers are imported inside the functions below, once settings and data are known
# to be good: a broken line of a file is then reported, and a finished run skipped, within a second.


def run(spec: Spec, command: str = "", cache: DataCache | None = None) -> Record:
    """Do one run, or return its record if it was done before.

    Args:
        spec: the settings.
        command: that reproduces the run; for the record.
        cache: shares data with other runs of the process.

    Raises:
        UserError: a setting or the data is wrong; nothing was trained.
        Exception: whatever the run raises; see ``execute``.
    """
    (outcome,) = execute([prepare(validate(spec), cache, command)])
    if outcome.error is not None:
        raise outcome.error
    return outcome.record


@dataclass
class Outcome:
    """How a run went.

    Attributes:
        planned: the run.
        folder: of its record.
        record: as it was found or written.
        error: why it failed; None: it did not.
    """

    planned: Run
    folder: Path
    record: Record
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Record a failure, unless another process has finished the run meanwhile."""
        self.error = error
        self.record.status = "failed"  # also where the good record could not be written
        self.record.error = " ".join(str(error).split()) or type(error).__name__
        found = records.read(self.folder)
        if found is None or found.status != "ok":
            records.write(self.folder, self.record)
            text = "".join(traceback.format_exception(error))
            (self.folder / "traceback.txt").write_text(text)


def execute(group: Sequence[Run]) -> list[Outcome]:
    """Train, score, save and record the runs of a group.

    A run that was done before is not repeated. One that fails drops out, and the others go on; it
    leaves a record with status ``failed`` and ``traceback.txt`` beside it. An interrupt leaves no
    record.

    Args:
        group: a single run, or runs that :mod:`lora_bench.sweep.groups` puts together.

    Returns:
        The outcome of each run, in the order of ``group``.

    Raises:
        ValueError: the runs cannot be trained in one pass.
    """
    shared = [shared_settings(planned.spec) for planned in group]
    if len(group) > 1 and any(one is None or one != shared[0] for one in shared):
        raise ValueError("these runs cannot be trained in one pass: see compatible.shared_settings")
    outcomes, missing = [], []
    for planned in group:
        outcome = _found(planned)
        outcomes.append(outcome)
        if outcome.error is None and outcome.record.status != "ok":
            missing.append(outcome)
    if missing:
        _train(missing)
    return outcomes


def _found(planned: Run) -> Outcome:
    """The good record of a run, or a new one; an error where its folder holds another run's."""
    try:
        folder, done = records.find(Path(planned.spec.out_dir), planned.identity)
    except UserError as error:
        return Outcome(planned, planned.folder, _begun(planned), error)
    good = done is not None and done.status == "ok"
    return Outcome(planned, folder, done if done and good else _begun(planned))


def _train(outcomes: Sequence[Outcome]) -> None:
    from .member import Members
    from .memory import PeakMemory, keep_freed_memory

    keep_freed_memory()
    members = Members(outcomes)
    with PeakMemory(outcomes[0].planned.spec.device) as peak:
        members.train()
    members.end(peak.bytes)


def _begun(planned: Run) -> Record:
    """The record before training: what the run is."""
    identity, settings = planned.identity, planned.spec.to_dict()
    return Record(
        key=planned.key,
        status="failed",
        where=identity.where,
        system=identity.system,
        seed=identity.seed,
        start=planned.start,
        spec={name: value for name, value in settings.items() if name not in NOT_RECORDED},
        command=planned.command,
        started=records.now(),
        provenance={},
    )


def announce(record: Record, folder: Path, *, skipped: bool) -> None:
    """Print one line: the run, its scores, its folder."""
    assert record.last is not None
    scores = ", ".join(f"{name} {100 * value:.1f}" for name, value in record.last["scores"].items())
    trained = f"trained in {record.train_seconds:.0f} s"
    if record.group is not None:
        trained += f", its share of a group of {record.group['size']}"
    out = sys.stderr if skipped else sys.stdout
    print(f"{record.key}: {scores} ({'already done' if skipped else trained}; {folder})", file=out)
