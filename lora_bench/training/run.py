"""Executes runs from data to record: see ``execute``, and ``Member`` for the parts of a run."""

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import record as records
from ..checkpoint import ADAPTER
from ..claims import Claimed, claims
from ..compose import validate
from ..errors import UserError, one_line
from ..files import name_file
from ..record import Record
from ..spec import NOT_RECORDED, Spec, typed
from .compatible import shared_settings
from .prepared import DataCache, Run, prepare
from .progress import stage
from .stop import StopSignals

if TYPE_CHECKING:
    from ..model.build import SharedEncoder

# torch and transformers are imported inside the functions below, after settings and data have been
# checked: a broken line in a file is reported, and a finished run skipped, within a second.


def run(spec: Spec, command: str = "", cache: DataCache | None = None) -> Record:
    """Execute one run, or return its record if it was done before.

    Args:
        spec: the settings.
        command: command that reproduces the run, for the record.
        cache: data shared with other runs of the process.

    Raises:
        UserError: a setting or the data is wrong; nothing was trained.
        Exception: whatever the run raises; see ``execute``.
    """
    spec = validate(typed(spec.to_dict()))  # alpha=16 in Python is the same run as alpha=16.0
    (outcome,) = execute([prepare(spec, cache, command)])
    if outcome.error is not None:
        raise outcome.error
    return outcome.record


@dataclass
class Outcome:
    """How a run went.

    Attributes:
        run: the run.
        folder: folder of its record.
        record: the record that was found or written.
        error: why it failed; None if it did not.
        trained: whether the run was trained just now; False: its record was found.
        checkpoint: checkpoint to continue from; None: the run starts afresh, or has continued.
    """

    run: Run
    folder: Path
    record: Record
    error: Exception | None = None
    trained: bool = False
    checkpoint: dict[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the run is still to do."""
        return self.error is None and self.record.status != "ok"

    def fail(self, error: Exception) -> None:
        """Record a failure, unless another process has finished the run in the meantime."""
        name_file(error, self.folder)
        self.error = error
        self.record.status = "failed"  # also if the good record could not be written
        self.record.error = one_line(error)
        found = records.read(self.folder)
        if found is None or found.status != "ok":
            records.write(self.folder, self.record)
            text = "".join(traceback.format_exception(error))
            with suppress(OSError):  # a full disk must not hide the error itself
                (self.folder / "traceback.txt").write_text(text, encoding="utf-8")


def execute(
    group: Sequence[Run], stop: StopSignals | None = None, place: str = ""
) -> list[Outcome]:
    """Train, score, save and record the runs of a group.

    A run that was done before is not repeated, and a run that another process is executing is left
    to it. A run that fails drops out while the others continue; it leaves a record with status
    ``failed`` and ``traceback.txt`` beside it. An interrupt leaves no record. A stopped run
    continues from its last checkpoint.

    Args:
        group: a single run, or runs that :mod:`lora_bench.sweep.groups` puts together.
        stop: signals that ask the process to stop; None: there are none.
        place: the runs' place in their sweep, as the progress bar shows it.

    Returns:
        The outcome of each run, in the order of ``group``.

    Raises:
        ValueError: the runs cannot be trained in one pass.
        Stopped: the process was asked to stop; there are checkpoints.
    """
    shared = [shared_settings(run.spec) for run in group]
    if len(group) > 1 and any(one is None or one != shared[0] for one in shared):
        raise ValueError("these runs cannot be trained in one pass: see compatible.shared_settings")
    outcomes = {run.key: _found(run) for run in group}
    wanted = {key: outcome.run.folder for key, outcome in outcomes.items() if outcome.is_open}
    with claims(list(wanted.values())) as holders:
        for key, folder in wanted.items():
            outcomes[key] = _found(outcomes[key].run)  # may have finished in the meantime
            holder = holders[folder]
            if outcomes[key].is_open and holder is not None:
                outcomes[key].error = Claimed(f"{key}: {holder} is doing this run")
        missing = [outcome for outcome in outcomes.values() if outcome.is_open]
        if missing:
            _train(missing, stop or StopSignals(), place)
        for outcome in missing:
            outcome.trained = outcome.error is None
    return [outcomes[run.key] for run in group]


def _found(run: Run) -> Outcome:
    """The good record of a run, or a new one; an error if its folder holds another run."""
    try:
        folder, done = records.find(Path(run.spec.out_dir), run.identity)
    except UserError as error:
        return Outcome(run, run.folder, _new_record(run), error)
    if done is not None and done.status == "ok":
        return Outcome(run, folder, done)
    return Outcome(run, folder, _new_record(run))


def _train(outcomes: Sequence[Outcome], stop: StopSignals, place: str) -> None:
    """Train all of them, in as few passes as memory and checkpoints allow."""
    spec = outcomes[0].run.spec
    with stage("loading PyTorch", shown=spec.progress):
        from ..model.build import SharedEncoder, check_device
        from .member import Members
        from .memory import PeakMemory, keep_freed_memory

    _warn_of_missing_bf16(spec)
    keep_freed_memory()
    shared, size = None, 1
    try:
        check_device(spec.device)
        if len(outcomes) > 1:
            shared = SharedEncoder(spec)
            size = _runs_that_fit(outcomes, shared)
    except Exception as error:
        for outcome in outcomes:
            outcome.fail(error)
        return
    for part in _at_one_step(outcomes):
        for start in range(0, len(part), size):
            members = Members(part[start : start + size], shared, stop, place)
            with PeakMemory(spec.device) as peak:
                members.train()
            members.end(peak.bytes)


def _warn_of_missing_bf16(spec: Spec) -> None:
    from ..model.bf16 import lacks_bf16

    if lacks_bf16(spec):
        print(
            "precision=bf16: this CPU has no instructions for it (AVX-512 or AMX), so matrix "
            "products are computed in fp32 and rounded: bf16 saves memory, but takes longer",
            file=sys.stderr,
        )


def _at_one_step(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Runs grouped by where they start: afresh, or from one step of one earlier group."""
    from . import checkpoint

    parts: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        run = outcome.run
        found = checkpoint.read(outcome.folder, run.key, run.spec.device)
        outcome.checkpoint = found
        name: tuple[Any, ...] = ()
        if found is not None:  # an epoch's last step may be before or after its scoring
            name = (found["counts"]["step_count"], len(found["epochs"]), *found["group"])
        parts.setdefault(name, []).append(outcome)
    return list(parts.values())


def _runs_that_fit(outcomes: Sequence[Outcome], shared: "SharedEncoder") -> int:
    """How many runs to train in one pass, so that a step uses at most half of the free memory."""
    from .memory import free_bytes, step_bytes

    run = outcomes[0].run
    spec, lengths = run.spec, run.prepared.encoded["train"].lengths
    needed = step_bytes(shared.encoder.config, lengths, spec.train, spec.precision)
    free = free_bytes(spec.device)
    size = len(outcomes) if free is None else min(len(outcomes), max(1, int(free / 2 / needed)))
    if size < len(outcomes):
        gib = 2**30
        print(
            f"group of {len(outcomes)}: {size} at a time, since a step of one run needs about "
            f"{needed / gib:.1f} GiB and {(free or 0) / gib:.1f} GiB are free",
            file=sys.stderr,
        )
    return size


def _new_record(run: Run) -> Record:
    """The record before training: what the run is."""
    identity, settings = run.identity, run.spec.to_dict()
    return Record(
        key=run.key,
        status="failed",
        where=identity.where,
        system=identity.system,
        seed=identity.seed,
        start=run.start,
        spec={name: value for name, value in settings.items() if name not in NOT_RECORDED},
        command=run.command,
        started=records.now(),
        provenance={},
    )


def announce(record: Record, folder: Path, *, skipped: bool) -> None:
    """Print one line: the run, its scores, its folder."""
    assert record.last is not None
    scores = records.scores_text(record.last["scores"], digits=1)
    how = "already done" if skipped else f"trained in {record.train_seconds:.0f} s"
    if record.group is not None and not skipped:
        how += f", its share of a group of {record.group['size']}"
    out = sys.stderr if skipped else sys.stdout
    if not (folder / ADAPTER).is_dir():
        how += f", but {ADAPTER}/ is missing: move the folder away to train it again"
    print(f"{record.key}: {scores} ({how}; {folder})", file=out)
