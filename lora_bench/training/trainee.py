"""Trainee: one run in training. ``fit`` trains any number of them, step by step in turn."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..methods import get_method
from ..model.build import build
from ..model.encoder import first_position
from ..model.packing import Batch
from ..model.streams import Streams
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec
from ..tasks import Task
from ..tasks.encoding import Encoded
from .loggers import Logger
from .prefix import FrozenPrefix, check_frozen


class NonFiniteLoss(RuntimeError):
    """Training diverged: the message names step and examples."""


class Trainee:
    """One run in training: its model, method, optimizer, schedule, streams and curves.

    Args:
        spec: of the run.
        task: of the spec.
        data: encoded training examples.
        logger: gets the curves.

    Raises:
        UserError: see ``build``.
    """

    def __init__(self, spec: Spec, task: Task, data: Encoded, logger: Logger | None = None):
        self.spec, self.task, self.data = spec, task, data
        self.logger = logger or Logger()
        self.streams = Streams(spec.seed)
        self.method = get_method(spec.method)
        self.model = build(spec, task, self.method, self.streams)
        self.order = self.streams.generator("order")
        self.steps_per_epoch = math.ceil(len(data) / spec.train.batch_size)
        self.total_steps = self.steps_per_epoch * spec.train.epochs
        self.method.steps = self.total_steps
        self.optimizer = self.method.optimizer(self.model, spec)
        factor = linear_schedule(self.total_steps, spec.train.warmup)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.step_count = self.tokens = self.examples = 0
        self.train_seconds = self.eval_seconds = 0.0
        self.epochs: list[dict[str, Any]] = []  # epoch, loss (mean over examples), scores
        self._prefix: FrozenPrefix | None = None
        self._batches: Iterator[Batch] = iter(())
        self._losses: list[float] = []  # of this epoch, each times its number of examples

    def start_epoch(self) -> None:
        """Shuffle the examples and begin again."""
        if self._prefix is None and self.spec.train.frozen_prefix == "cache":
            started = time.perf_counter()
            self._prefix = self._frozen_prefix()
            self.train_seconds += time.perf_counter() - started
        order = self.order.permutation(len(self.data))
        size = self.spec.train.batch_size
        self._batches = batches(self.model, self.data, size, order, self._prefix)
        self._losses = []

    @torch.no_grad()
    def _frozen_prefix(self) -> FrozenPrefix:
        """The output of the layers below the lowest trained one for every training example."""
        depth = self.method.lowest_trained(self.spec)
        if depth is None:
            depth = len(self.model.encoder.encoder.layer)
        check_frozen(self.model, depth)
        self.model.eval()
        in_order = np.arange(len(self.data))
        found = batches(self.model, self.data, self.spec.eval_batch_size, in_order)
        hidden = torch.cat([self.model.encode.lower(batch, depth) for batch in found])
        return FrozenPrefix(depth, hidden, self.data.starts)

    def step(self) -> float:
        """One optimizer step on the next batch; returns the mean loss of its examples.

        Raises:
            NonFiniteLoss: the loss is NaN or infinite; the weights are those before this step.
        """
        started = time.perf_counter()
        batch = next(self._batches)
        loss = self.step_on(batch)
        self._losses.append(loss * len(batch.first))
        self.tokens += len(batch.input_ids)
        self.examples += len(batch.first)
        self.train_seconds += time.perf_counter() - started
        return loss

    def step_on(self, batch: Batch) -> float:
        """One optimizer step on ``batch``; returns the mean loss of its examples.

        Raises:
            NonFiniteLoss: see ``step``.
        """
        self.model.train()
        loss = self.task.loss(self.model(batch), batch)
        value = loss.item()
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"loss is {value} at step {self.step_count + 1} (training examples "
                f"{[] if batch.index is None else batch.index.tolist()}); try a lower train.lr "
                f"than {self.spec.train.lr:g} or precision=fp32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.spec.train.max_grad_norm)
        self.optimizer.step()
        self.step_count += 1
        self.method.after_step(self.model, self.step_count)
        rate = float(self.schedule.get_last_lr()[0])
        self.logger.log(self.step_count, {"train/loss": value, "train/lr": rate})
        self.schedule.step()
        return value

    def end_epoch(self, evaluate: Callable[["Trainee"], dict[str, float]]) -> None:
        """Score the model after an epoch and note the epoch.

        Args:
            evaluate: returns the scores of the validation data by name.
        """
        started = time.perf_counter()
        scores = evaluate(self)
        self.eval_seconds += time.perf_counter() - started
        self.logger.log(self.step_count, {f"validation/{name}": v for name, v in scores.items()})
        loss = sum(self._losses) / len(self.data)
        self.epochs.append({"epoch": len(self.epochs) + 1, "loss": loss, "scores": scores})


def fit(
    trainees: Sequence[Trainee],
    evaluate: Callable[[Trainee], dict[str, float]],
    name: str = "",
    failed: Callable[[Trainee, Exception], None] | None = None,
) -> None:
    """Train all of them for their epochs, one step each in turn.

    Args:
        trainees: with equally many epochs and steps per epoch.
        evaluate: scores a trainee's model after an epoch.
        name: of the progress bar.
        failed: is told of a trainee whose step or scoring raised; the others go on without it.
            None: the exception is raised.

    Raises:
        ValueError: the numbers of epochs or of steps differ.
        NonFiniteLoss: a loss is NaN or infinite, and ``failed`` is None.
    """
    if not trainees:
        return
    if len({(t.spec.train.epochs, t.steps_per_epoch) for t in trainees}) > 1:
        raise ValueError("the runs of a group must have equally many epochs and steps")
    left = list(trainees)

    def each(part: Callable[[Trainee], Any]) -> list[Any]:
        results = []
        for trainee in tuple(left):
            try:
                results.append(part(trainee))
            except Exception as error:
                if failed is None:
                    raise
                failed(trainee, error)
                left.remove(trainee)
        return results

    first = trainees[0]
    disable = None if first.spec.progress else True  # None: a bar on terminals only
    with tqdm(
        total=first.total_steps,
        desc=name,
        unit="step",
        disable=disable,
        dynamic_ncols=True,
        leave=False,
    ) as bar:
        for epoch in range(1, first.spec.train.epochs + 1):
            each(Trainee.start_epoch)
            for _ in range(first.steps_per_epoch):
                losses = each(Trainee.step) or [math.nan]
                bar.set_postfix(epoch=epoch, loss=f"{losses[0]:.3f}", refresh=False)
                bar.update()
            each(lambda trainee: trainee.end_epoch(evaluate))


@torch.no_grad()
def predict(model: LoraWrapperRoberta, task: Task, data: Encoded, spec: Spec) -> list[Tensor]:
    """The model's output for each example, in the order of ``data``."""
    model.eval()
    outputs: dict[int, Tensor] = {}
    by_length = np.argsort(-data.lengths, kind="stable")  # longest first: out of memory at once
    for batch in batches(model, data, spec.eval_batch_size, by_length):
        logits = model(batch)
        assert batch.index is not None
        outputs.update(zip(batch.index.tolist(), task.split(logits, batch), strict=True))
    return [outputs[index] for index in range(len(data))]


def batches(
    model: LoraWrapperRoberta,
    data: Encoded,
    size: int,
    order: np.ndarray,
    prefix: FrozenPrefix | None = None,
) -> Iterator[Batch]:
    """Packed batches of ``size`` examples in the given order; the last one may be smaller.

    Args:
        model: decides device and position of a first token.
        data: encoded examples.
        size: examples per batch.
        order: indices of examples, (n,).
        prefix: outputs of the lowest layers on ``data``, where they are known.
    """
    device = next(model.parameters()).device
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batch = Batch.pack(
            data.pieces(data.input_ids, chosen),
            data.pieces(data.token_type_ids, chosen),
            first_position=first_position(model.encoder),
            labels=None if data.labels is None else data.labels[chosen],
            index=chosen,
            device=device,
        )
        if prefix is not None:
            batch.hidden, batch.depth = prefix.of(chosen), prefix.depth
        yield batch


def linear_schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor on the learning rate before step i (from 0): linear warm-up, then linear decay to 0.

    Args:
        steps: of the whole run.
        warmup: share of the steps over which the rate rises.
    """
    rise = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise))

    return factor
