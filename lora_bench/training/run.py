"""A run from its data to its record, in the order in which it happens."""

import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import record as records
from ..compose import validate
from ..data import HELD_OUT
from ..record import Record, suffix_of
from ..spec import FOLDERS, Spec
from .prepared import DataCache, Prepared, Run, adapter_behind, prepare

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta
    from .trainee import Trainee

# torch and transformers are imported inside the functions below, once settings and data are known
# to be good: a broken line of a file is then reported, and a finished run skipped, within a second.

TOLERANCE = 1e-6  # between the scores before saving an adapter and after loading it
ADAPTER, BEST_ADAPTER, PREDICTIONS = "adapter", "adapter_best", "predictions"


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
    return execute(prepare(validate(spec), cache), command)


def execute(planned: Run, command: str = "") -> Record:
    """Train, score, save and record a run, or return its record if it was done before.

    A failure leaves a record with status ``failed`` and ``traceback.txt`` beside it, and is raised
    again. An interrupt leaves no record.

    Args:
        planned: the run.
        command: that reproduces it; for the record.

    Raises:
        UserError: the key belongs to a run with another default of a setting.
        Exception: whatever training raises.
    """
    folder, done = records.find(Path(planned.spec.out_dir), planned.identity)
    if done is not None and done.status == "ok":
        return done
    record = _begun(planned, command)
    try:
        _train(planned, record)
    except Exception as error:
        record.error = " ".join(str(error).split()) or type(error).__name__
        _record_failure(folder, record)
        raise
    record.status = "ok"
    records.write(folder, record)
    (folder / "traceback.txt").unlink(missing_ok=True)
    return record


def _record_failure(folder: Path, record: Record) -> None:
    """Write a failed record, unless another process has finished the run meanwhile."""
    found = records.read(folder)
    if found is None or found.status != "ok":
        records.write(folder, record)
        (folder / "traceback.txt").write_text(traceback.format_exc())


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


def _train(planned: Run, record: Record) -> None:
    import torch

    from ..checkpoint import load_adapter, save_adapter, start_from
    from ..model.parameters import parameter_counts, parameter_text
    from .loggers import make_logger
    from .memory import PeakMemory, keep_freed_memory
    from .trainee import Trainee, fit

    keep_freed_memory()
    spec, prepared, folder = planned.spec, planned.prepared, planned.folder
    record.provenance = records.provenance(spec.device, torch.get_num_threads())
    record.data = prepared.facts
    logger = make_logger(spec, planned.key, folder)
    try:
        with PeakMemory(spec.device) as peak:
            trainee = Trainee(spec, prepared.task, prepared.encoded["train"], logger)
            if spec.init_from is not None:
                start_from(adapter_behind(spec), trainee.model)
            keeper = BestEpoch(planned)
            fit([trainee], keeper.score, planned.key)
    finally:
        logger.close()
    model = trainee.model
    record.peak_memory_bytes = peak.bytes
    record.adapter_bytes = save_adapter(folder / ADAPTER, model, spec, planned.identity.cell)
    record.parameters = parameter_counts(model)
    (folder / "parameters.md").write_text(parameter_text(model))
    _note_training(record, trainee)
    record.best = trainee.epochs[keeper.index]
    fresh = _rebuilt(spec, prepared)
    load_adapter(folder / ADAPTER, fresh)
    found = evaluate(fresh, prepared, spec)
    _check_reloaded(record, found.scores)
    _write_predictions(planned, found, keeper.best)


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


@dataclass
class Evaluation:
    """Scores by name, the predictions of each split, and the threshold behind the scores."""

    scores: dict[str, float]
    predictions: dict[str, Any]
    threshold: float | None


def evaluate(model: "LoraWrapperRoberta", prepared: Prepared, spec: Spec) -> Evaluation:
    """Predict and score every split that a run reports on.

    A score's name ends in the split's suffix, as in ``accuracy_mismatched``.

    Args:
        model: of the run.
        prepared: its data.
        spec: batch size and precision of scoring.
    """
    from .trainee import predict

    task, splits = prepared.task, prepared.splits

    def decoded(split: str) -> Any:
        encoded = prepared.encoded[split]
        return task.decode(predict(model, task, encoded, spec), splits[split].rows, encoded)

    threshold = None
    if HELD_OUT in splits:
        threshold = task.tune(decoded(HELD_OUT), splits[HELD_OUT].rows)
    predictions = {split: decoded(split) for split in prepared.scored}
    scores = {
        name + suffix_of(split): value
        for split, found in predictions.items()
        for name, value in task.score(found, splits[split].rows, split, threshold).items()
    }
    return Evaluation(scores, predictions, threshold)


class BestEpoch:
    """Scores a trainee after each epoch and keeps the best epoch's adapter and predictions.

    The first metric decides, on the data that it is reported on; the earliest of equals stays.
    """

    def __init__(self, planned: Run):
        self.planned = planned
        self.best: Evaluation | None = None
        self.index = 0  # of the best epoch, from 0

    def score(self, trainee: "Trainee") -> dict[str, float]:
        """The scores of the trainee's model now."""
        from ..checkpoint import save_adapter

        planned = self.planned
        found = evaluate(trainee.model, planned.prepared, planned.spec)
        if self.best is None or _first(found) > _first(self.best):
            self.best, self.index = found, len(trainee.epochs)
            folder = planned.folder / BEST_ADAPTER
            save_adapter(folder, trainee.model, planned.spec, planned.identity.cell)
        return found.scores


def _first(found: Evaluation) -> float:
    return next(iter(found.scores.values()))


def _write_predictions(planned: Run, last: Evaluation, best: Evaluation | None) -> None:
    """Write each split's references and predictions, and files of an official format."""
    assert best is not None
    task, splits = planned.prepared.task, planned.prepared.splits
    folder = planned.folder / PREDICTIONS
    folder.mkdir(parents=True, exist_ok=True)
    for split, predictions in last.predictions.items():
        rows = splits[split].rows
        table = task.stored(predictions, rows)
        table["best_prediction"] = task.stored(best.predictions[split], rows)["prediction"]
        table.to_parquet(folder / f"{split}.parquet")
        task.write_predictions(folder, predictions, rows, last.threshold)


def announce(record: Record, folder: Path, *, skipped: bool) -> None:
    """Print one line: the run, its scores, its folder."""
    assert record.last is not None
    scores = ", ".join(f"{name} {100 * value:.1f}" for name, value in record.last["scores"].items())
    verb = "already done" if skipped else f"trained in {record.train_seconds:.0f} s"
    out = sys.stderr if skipped else sys.stdout
    print(f"{record.key}: {scores} ({verb}; {folder})", file=out)
