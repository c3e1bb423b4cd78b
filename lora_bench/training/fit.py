"""fit() and predict(): the only training loop."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..methods import Method
from ..model.encoder import first_position
from ..model.packing import Batch
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec
from ..tasks.encoding import Encoded
from .loggers import Logger


class NonFiniteLoss(RuntimeError):
    """Training diverged: the message names step and batch."""


@dataclass
class Fit:
    """What training did: one dict for each epoch, and what it cost."""

    epochs: list[dict] = field(default_factory=list)  # {"epoch", "loss", "scores"}
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    examples: int = 0
    tokens: int = 0  # real ones: there is no padding to count
    steps: int = 0


def fit(
    model: LoraWrapperRoberta,
    method: Method,
    task,
    data: Encoded,
    spec: Spec,
    evaluate: Callable[[], dict[str, float]],
    logger: Logger | None = None,
) -> Fit:
    """Train ``model`` in place with the spec's recipe; ``evaluate()`` scores it after each epoch; ``logger`` gets the curves.

    Raises: NonFiniteLoss: the loss of a batch is NaN or infinite; the weights are those before that step.
    """
    steps_per_epoch = math.ceil(len(data) / spec.train.batch_size)
    total = steps_per_epoch * spec.train.epochs
    method.steps = total
    optimizer = method.optimizer(model, spec)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, linear_schedule(total, spec.train.warmup)
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    order = np.random.default_rng(spec.seed)
    result, logger = Fit(), logger or Logger()
    disable = None if spec.progress else True  # None: a bar on terminals only, not in log files
    bar = tqdm(
        total=total, desc=spec.key(), unit="step", disable=disable, dynamic_ncols=True, leave=False
    )
    for epoch in range(1, spec.train.epochs + 1):
        model.train()
        losses = []
        started = time.perf_counter()
        for batch in batches(model, data, spec.train.batch_size, order.permutation(len(data))):
            loss = train_step(
                model, method, task, batch, spec, optimizer, trained, result.steps + 1
            )
            schedule.step()
            losses.append(loss * len(batch.first))
            result.steps += 1
            result.tokens += len(batch.input_ids)
            logger.log(result.steps, {"train/loss": loss, "train/lr": schedule.get_last_lr()[0]})
            bar.set_postfix(
                epoch=epoch,
                loss=f"{loss:.3f}",
                lr=f"{schedule.get_last_lr()[0]:.1e}",
                refresh=False,
            )
            bar.update()
        result.train_seconds += time.perf_counter() - started
        result.examples += len(data)
        started = time.perf_counter()
        scores = evaluate()
        result.eval_seconds += time.perf_counter() - started
        logger.log(result.steps, {f"validation/{name}": value for name, value in scores.items()})
        result.epochs.append({"epoch": epoch, "loss": sum(losses) / len(data), "scores": scores})
    bar.close()
    return result


def train_step(
    model: LoraWrapperRoberta,
    method: Method,
    task,
    batch: Batch,
    spec: Spec,
    optimizer: torch.optim.Optimizer,
    trained: list[Tensor],
    step: int,
) -> float:
    """One optimizer step; returns the mean loss of the batch."""
    loss = task.loss(model(batch), batch)
    value = loss.item()
    if not math.isfinite(value):
        raise NonFiniteLoss(
            f"loss is {value} at step {step} (training examples {batch.index.tolist()}); "
            f"try a lower train.lr than {spec.train.lr:g} or precision=fp32"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, spec.train.max_grad_norm)
    optimizer.step()
    method.after_step(model, step)
    return value


@torch.no_grad()
def predict(model: LoraWrapperRoberta, task, data: Encoded, spec: Spec) -> list[Tensor]:
    """The model's output for each example, in the order of ``data``."""
    model.eval()
    outputs: list[Tensor | None] = [None] * len(data)
    by_length = np.argsort(
        -data.lengths, kind="stable"
    )  # longest first: memory trouble shows at once
    for batch in batches(model, data, spec.eval_batch_size, by_length):
        logits = model(batch)
        for index, output in zip(batch.index.tolist(), task.split(logits, batch), strict=True):
            outputs[index] = output
    return outputs


def batches(
    model: LoraWrapperRoberta, data: Encoded, size: int, order: np.ndarray
) -> Iterator[Batch]:
    """Packed batches of ``size`` examples in the given order; the last one may be smaller."""
    device = next(model.parameters()).device
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield Batch.pack(
            data.pieces(data.input_ids, chosen),
            data.pieces(data.token_type_ids, chosen),
            first_position=first_position(model.encoder),
            labels=None if data.labels is None else data.labels[chosen],
            index=chosen,
            device=device,
        )


def linear_schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor on the learning rate before step i (from 0): linear up over the share ``warmup``, linear down to 0."""
    rise = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise))

    return factor
