"""Scoring a model during and after training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data import HELD_OUT
from ..record import suffix_of
from ..spec import Spec
from .prepared import Prepared, Run

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta
    from .trainee import Trainee

BEST_ADAPTER, PREDICTIONS = "adapter_best", "predictions"


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


def write_predictions(planned: Run, last: Evaluation, best: Evaluation | None) -> None:
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
