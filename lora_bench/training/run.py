"""A run from its data to its record, in the order in which it happens."""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import record as records
from ..compose import validate
from ..record import Record
from ..spec import FOLDERS, Spec
from .evaluation import BestEpoch, evaluate, write_predictions
from .prepared import DataCache, Prepared, Run, adapter_behind, prepare

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta
    from .trainee import Trainee

# torch and transformers are imported inside the functions below, once settings and data are known
# to be good: a broken line of a file is then reported, and a finished run skipped, within a second.

TOLERANCE = 1e-6  # between the scores before saving an adapter and after loading it
ADAPTER = "adapter"


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
    (outcome,) = execute([prepare(validate(spec), cache)], [command])
    if outcome.error is not None:
        raise outcome.error
    return outcome.record


@dataclass
class Outcome:
    """The record of a run, and why it failed, if it did."""

    record: Record
    error: Exception | None = None


def execute(group: Sequence[Run], commands: Sequence[str]) -> list[Outcome]:
    """Train, score, save and record the runs of a group, one step each in turn.

    A run that was done before is not repeated. One that fails drops out, and the others go on; it
    leaves a record with status ``failed`` and ``traceback.txt`` beside it. An interrupt leaves no
    record.

    Args:
        group: runs with equally many epochs and steps; a single run is a group of one.
        commands: that reproduce them; for the records.

    Returns:
        The outcome of each run, in the order of ``group``.

    Raises:
        UserError: a key belongs to a run with another default of a setting.
    """
    outcomes, members = [], []
    for planned, command in zip(group, commands, strict=True):
        folder, done = records.find(Path(planned.spec.out_dir), planned.identity)
        if done is not None and done.status == "ok":
            outcomes.append(Outcome(done))
            continue
        member = _Member(planned, folder, command)
        members.append(member)
        outcomes.append(member.outcome)
    if members:
        _train(members)
    return outcomes


def _train(members: Sequence["_Member"]) -> None:
    from .memory import PeakMemory, keep_freed_memory
    from .trainee import fit

    keep_freed_memory()
    spec = members[0].planned.spec
    with PeakMemory(spec.device) as peak:
        for member in members:
            member.attempt(member.begin)
        training = {member.trainee: member for member in members if not member.failed}
        try:
            fit(
                list(training),
                lambda trainee: training[trainee].keeper.score(trainee),
                ", ".join(member.planned.key for member in members),
                lambda trainee, error: training[trainee].fail(error),
            )
        finally:
            for member in training.values():
                member.trainee.logger.close()
    for member in training.values():
        if not member.failed:
            member.record.peak_memory_bytes = peak.bytes
            member.attempt(member.end)


class _Member:
    """A run of a group while it is being done.

    Args:
        planned: the run.
        folder: of its record.
        command: for the record.
    """

    trainee: "Trainee"  # from ``begin`` on, as is the next
    keeper: BestEpoch

    def __init__(self, planned: Run, folder: Path, command: str):
        self.planned, self.folder = planned, folder
        self.record = _begun(planned, command)
        self.outcome = Outcome(self.record)

    @property
    def failed(self) -> bool:
        """Whether the run has failed."""
        return self.outcome.error is not None

    def attempt(self, part: Callable[[], None]) -> None:
        """Do a part of the run; an exception fails this run alone."""
        try:
            part()
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Record the failure, unless another process has finished the run meanwhile."""
        self.outcome.error = error
        self.record.status = "failed"  # also where the good record could not be written
        self.record.error = " ".join(str(error).split()) or type(error).__name__
        found = records.read(self.folder)
        if found is None or found.status != "ok":
            records.write(self.folder, self.record)
            text = "".join(traceback.format_exception(error))
            (self.folder / "traceback.txt").write_text(text)

    def begin(self) -> None:
        """Encode the data and build the model."""
        import torch

        from ..checkpoint import start_from
        from .loggers import make_logger
        from .trainee import Trainee

        planned, spec, prepared = self.planned, self.planned.spec, self.planned.prepared
        self.record.provenance = records.provenance(spec.device, torch.get_num_threads())
        self.record.data = prepared.facts
        logger = make_logger(spec, planned.key, planned.folder)
        try:
            self.trainee = Trainee(spec, prepared.task, prepared.encoded["train"], logger)
            if spec.init_from is not None:
                start_from(adapter_behind(spec), self.trainee.model)
        except BaseException:
            logger.close()
            raise
        self.keeper = BestEpoch(planned)

    def end(self) -> None:
        """Save the trained model, score what was saved, and write the record."""
        from ..checkpoint import load_adapter, save_adapter
        from ..model.parameters import parameter_counts, parameter_text

        planned, record, model = self.planned, self.record, self.trainee.model
        spec, prepared, folder = planned.spec, planned.prepared, planned.folder
        record.adapter_bytes = save_adapter(folder / ADAPTER, model, spec, planned.identity.cell)
        record.parameters = parameter_counts(model)
        (folder / "parameters.md").write_text(parameter_text(model))
        _note_training(record, self.trainee)
        record.best = self.trainee.epochs[self.keeper.index]
        fresh = _rebuilt(spec, prepared)
        load_adapter(folder / ADAPTER, fresh)
        found = evaluate(fresh, prepared, spec)
        _check_reloaded(record, found.scores)
        write_predictions(planned, found, self.keeper.best)
        record.status = "ok"
        records.write(self.folder, record)
        (self.folder / "traceback.txt").unlink(missing_ok=True)


def _begun(planned: Run, command: str) -> Record:
    """The record before training: what the run is."""
    identity, settings = planned.identity, planned.spec.to_dict()
    return Record(
        key=planned.key,
        status="failed",
        where=identity.where,
        system=identity.system,
        seed=identity.seed,
        start=planned.start,
        spec={name: value for name, value in settings.items() if name not in FOLDERS},
        command=command,
        started=records.now(),
        provenance={},
    )


def _note_training(record: Record, trainee: "Trainee") -> None:
    """Put the curves and costs of training into the record."""
    record.epochs, record.last = trainee.epochs, trainee.epochs[-1]
    record.streams = trainee.streams.used
    record.train_seconds, record.eval_seconds = trainee.train_seconds, trainee.eval_seconds
    record.examples_per_second = trainee.examples / trainee.train_seconds
    record.tokens_per_second = trainee.tokens / trainee.train_seconds


def _rebuilt(spec: Spec, prepared: Prepared) -> "LoraWrapperRoberta":
    """A fresh model of the run, as it was before training."""
    from ..methods import get_method
    from ..model.build import build
    from ..model.streams import Streams

    return build(spec, prepared.task, get_method(spec.method), Streams(spec.seed))


def _check_reloaded(record: Record, scores: dict[str, float]) -> None:
    """Note the scores of the saved adapter. Raises: RuntimeError: they are not those of the run."""
    assert record.last is not None
    record.reloaded = scores
    for name, value in scores.items():
        before = record.last["scores"][name]
        if abs(value - before) > TOLERANCE:
            raise RuntimeError(f"{name} was {before} and is {value} after saving and loading")


def announce(record: Record, folder: Path, *, skipped: bool) -> None:
    """Print one line: the run, its scores, its folder."""
    assert record.last is not None
    scores = ", ".join(f"{name} {100 * value:.1f}" for name, value in record.last["scores"].items())
    verb = "already done" if skipped else f"trained in {record.train_seconds:.0f} s"
    out = sys.stderr if skipped else sys.stdout
    print(f"{record.key}: {scores} ({verb}; {folder})", file=out)
