"""Scoring the models of a group during and after training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import BEST_ADAPTER, save_adapter
from ..data import HELD_OUT
from ..files import whole_folder
from ..model.bf16 import bf16_products
from ..model.group import Group
from ..record import suffix_of
from ..spec import Spec
from ..tasks import Task
from ..tasks.encoding import Encoded
from .prepared import Prepared, Run
from .progress import bar
from .trainee import Diverged, Trainee, batches

PREDICTIONS = "predictions"

Outputs = Mapping[str, list[Tensor]]  # outputs of a model for each example of each split


@dataclass
class Evaluation:
    """Scores by name, the predictions of each split, and the threshold behind the scores."""

    scores: dict[str, float]
    predictions: dict[str, Any]
    threshold: float | None


@torch.no_grad()
def predict(group: Group, task: Task, data: Encoded, spec: Spec) -> list[list[Tensor]]:
    """The output of each model for each example, in the order of ``data``.

    Args:
        group: models that all predict the same examples.
        task: task of the models.
        data: encoded examples.
        spec: settings; ``eval_batch_size`` is the total over all models.
    """
    models = group.models
    for model in models:
        model.eval()
    size = -(-spec.eval_batch_size // len(models))
    outputs: list[dict[int, Tensor]] = [{} for _ in models]
    by_length = np.argsort(-data.lengths, kind="stable")  # longest first: memory errors come early
    name = f"scoring {task.spec.name}"
    progress = bar(name, shown=spec.progress, unit="example", total=len(data))
    with progress as shown, bf16_products(spec):
        for batch in batches(models[0], data, size, by_length):
            assert batch.index is not None
            for own, logits in zip(outputs, group([batch] * len(models)), strict=True):
                own.update(zip(batch.index.tolist(), task.split(logits, batch), strict=True))
            shown.update(len(batch.index))
    return [[own[index] for index in range(len(data))] for own in outputs]


def outputs_of(group: Group, prepared: Prepared, spec: Spec) -> list[Outputs]:
    """Outputs of each model of a group for every split that a run reports or tunes on.

    Args:
        group: models of runs that share their data.
        prepared: their data.
        spec: settings, for the number of examples per forward pass.
    """
    tuned = [HELD_OUT] if HELD_OUT in prepared.splits else []
    splits = [*tuned, *prepared.scored]
    found = [predict(group, prepared.task, prepared.encoded[split], spec) for split in splits]
    return [dict(zip(splits, own, strict=True)) for own in zip(*found, strict=True)]


def score(outputs: Outputs, prepared: Prepared) -> Evaluation:
    """The scores of one model.

    A score's name ends in the split's suffix, as in ``accuracy_mismatched``.

    Args:
        outputs: outputs of the model, see ``outputs_of``.
        prepared: data of the run.
    """
    task, splits = prepared.task, prepared.splits

    def decoded(split: str) -> Any:
        return task.decode(outputs[split], splits[split].rows, prepared.encoded[split])

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
    """Scores a run after each epoch and keeps the best epoch's adapter and predictions.

    The first metric decides, on the data that it is reported on; the earliest of ties is kept.

    Args:
        run: the run.
        folder: folder of its record.
    """

    def __init__(self, run: Run, folder: Path):
        self.run, self.folder = run, folder
        self.best: Evaluation | None = None
        self.outputs: Outputs | None = None  # outputs of the best epoch
        self.index = 0  # index of the best epoch, from 0

    def score(self, trainee: Trainee, outputs: Outputs) -> dict[str, float]:
        """The scores of the trainee's model now.

        Args:
            trainee: trainee of the run.
            outputs: outputs of its model.

        Raises:
            Diverged: an output is NaN, which some metrics would score as any other.
        """
        run, epoch = self.run, len(trainee.epochs)
        if any(torch.cat([one.flatten() for one in own]).isnan().any() for own in outputs.values()):
            raise Diverged(f"outputs are NaN after epoch {epoch + 1}", run.spec)
        found = score(outputs, run.prepared)
        repeated = epoch == self.index  # the best epoch is scored again in another process
        if self.best is None or repeated or _first(found) > _first(self.best):
            self.best, self.outputs, self.index = found, outputs, epoch
            save_adapter(self.adapter, trainee.model, run.spec, run.identity.cell)
        return found.scores

    @property
    def adapter(self) -> Path:
        """Folder of the best epoch's adapter."""
        return self.folder / BEST_ADAPTER

    def state(self) -> dict[str, Any]:
        """What a stopped run needs to continue.

        That includes the files of the adapter: a later epoch, which is lost if the process is then
        killed, may replace those in its folder.
        """
        if self.outputs is None:
            return {"outputs": None, "index": self.index, "files": {}}
        files = {path.name: _as_tensor(path.read_bytes()) for path in self.adapter.iterdir()}
        return {"outputs": dict(self.outputs), "index": self.index, "files": files}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self.outputs, self.index = state["outputs"], state["index"]
        if self.outputs is not None:
            self.best = score(self.outputs, self.run.prepared)
            with whole_folder(self.adapter) as folder:
                for name, content in state["files"].items():
                    (folder / name).write_bytes(content.numpy().tobytes())


def _as_tensor(content: bytes) -> Tensor:
    """Bytes in a form in which a checkpoint can hold them, (n,) uint8."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _first(found: Evaluation) -> float:
    return next(iter(found.scores.values()))


def write_predictions(run: Run, folder: Path, last: Evaluation, best: Evaluation) -> None:
    """Write each split's references and predictions, and files of an official format.

    Args:
        run: the run.
        folder: folder of its record.
        last: evaluation of the last epoch.
        best: evaluation of the best epoch.
    """
    task, splits = run.prepared.task, run.prepared.splits
    folder = folder / PREDICTIONS
    folder.mkdir(parents=True, exist_ok=True)
    for split, predictions in last.predictions.items():
        rows = splits[split].rows
        table = task.stored(predictions, rows)
        table["best_prediction"] = task.stored(best.predictions[split], rows)["prediction"]
        table.to_parquet(folder / f"{split}.parquet")
        place = folder / split if suffix_of(split) else folder  # the files' names are official
        task.write_predictions(place, predictions, rows, last.threshold)
