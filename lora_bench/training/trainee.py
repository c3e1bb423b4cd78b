"""Trainee: one run in training, and the batches that it trains on."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..methods import get_method
from ..model.build import SharedEncoder, build
from ..model.encoder import first_position
from ..model.packing import Batch
from ..model.streams import Streams, restore, state_of
from ..model.wrapper import LoraWrapperRoberta
from ..record import DIVERGED
from ..spec import Spec
from ..tasks import Task
from ..tasks.encoding import Encoded
from .guard import Guard
from .loggers import Logger
from .prefix import FrozenPrefix, check_frozen


class Diverged(RuntimeError):
    """A loss, score or output is not finite.

    Args:
        what: which one, and where.
        spec: settings of the run, for the advice.
    """

    def __init__(self, what: str, spec: Spec):
        advice = f"try a lower train.lr than {spec.train.lr:g} or precision=fp32"
        super().__init__(f"{DIVERGED}{what}; {advice}")


@dataclass
class Costs:
    """Wall time of a run in seconds: its share, and the whole group's while it was a member.

    A training step is shared by tokens, scoring in equal parts.
    """

    train: float = 0.0
    evaluate: float = 0.0
    group_train: float = 0.0
    group_evaluate: float = 0.0


COUNTS = ("step_count", "tokens", "examples")


class Trainee:
    """One run in training: its model, method, optimizer, schedule, streams and curves.

    Args:
        spec: settings of the run.
        task: task of the spec.
        data: encoded training examples.
        logger: receives the curves.
        shared: the encoder of its group; None: its own encoder.

    Raises:
        UserError: see ``build``.
    """

    def __init__(
        self,
        spec: Spec,
        task: Task,
        data: Encoded,
        logger: Logger | None = None,
        shared: SharedEncoder | None = None,
    ):
        self.spec, self.task, self.data = spec, task, data
        self.logger = logger or Logger()
        self.streams = Streams(spec.seed)
        self.method = get_method(spec.method)
        self.model = build(spec, task, self.method, self.streams, shared)
        assert self.model.stream is not None
        self.masks = self.model.stream
        self.order = self.streams.generator("order")
        self.steps_per_epoch = math.ceil(len(data) / spec.train.batch_size)
        self.total_steps = self.steps_per_epoch * spec.train.epochs
        self.method.steps = self.total_steps
        self.optimizer = self.method.optimizer(self.model, spec)
        factor = linear_schedule(self.total_steps, spec.train.warmup)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.step_count = self.tokens = self.examples = 0
        self.costs = Costs()
        self.epochs: list[dict[str, Any]] = []  # epoch, loss (mean over examples), scores
        self._batches: Iterator[list[Batch]] = iter(())
        self._upcoming: list[Batch] | None = None  # the next batch, if it is made
        self._losses: list[float] = []  # of this epoch, each multiplied by its number of examples
        self._examples = np.arange(0)  # of this epoch, in order

    def start_epoch(self, prefix: FrozenPrefix | None = None) -> None:
        """Shuffle the examples and start an epoch.

        Args:
            prefix: output of ``frozen_prefix``, which other runs of the group may share.
        """
        self._begin(self.order.permutation(len(self.data)), 0, prefix)

    def _begin(self, examples: np.ndarray, done: int, prefix: FrozenPrefix | None) -> None:
        """Start an epoch, or continue one.

        Args:
            examples: indices in the order of the epoch, (n,).
            done: number of steps of the epoch that are done.
            prefix: see ``start_epoch``.
        """
        self.model.train()
        size = self.spec.train.batch_size
        self._examples, self._losses, self._upcoming = examples, [], None
        self._batches = self._steps(examples[done * size :], prefix)

    def _steps(self, examples: np.ndarray, prefix: FrozenPrefix | None) -> Iterator[list[Batch]]:
        """The batch of each step, in ``train.accumulate`` parts."""
        train = self.spec.train
        for start in range(0, len(examples), train.batch_size):
            own = examples[start : start + train.batch_size]
            size = math.ceil(len(own) / train.accumulate)
            yield list(batches(self.model, self.data, size, own, prefix))

    @torch.no_grad()
    def frozen_prefix(self) -> FrozenPrefix:
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

    def next_batch(self) -> list[Batch]:
        """The batch of the next step, in parts; clears the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)
        batch, self._upcoming = self._upcoming or next(self._batches), None
        return batch

    def prefetch(self) -> None:
        """Make the batch of the next step while a GPU is still computing this one."""
        self._upcoming = next(self._batches, None)

    def apply(self, loss: Tensor, guard: Guard | None) -> None:
        """One optimizer step with the gradients of a batch, if its loss is finite.

        Args:
            loss: mean loss over the batch, a scalar on the device.
            guard: clips and checks on the device; None: the loss is read here.
        """
        if guard is not None:
            # the names by which PyTorch's GradScaler hands both to a fused optimizer
            vars(self.optimizer).update(grad_scale=guard.divisor, found_inf=guard.skip)
        elif loss.isfinite():
            torch.nn.utils.clip_grad_norm_(self.trained, self.spec.train.max_grad_norm)
        else:
            return
        self.optimizer.step()

    def record(self, loss: float, batch: Sequence[Batch]) -> None:
        """Note a step whose gradients were applied.

        Args:
            loss: mean loss over the batch.
            batch: the batch of the step, in parts.

        Raises:
            Diverged: the loss is NaN or infinite; the weights are those before this step.
        """
        if not math.isfinite(loss):
            examples = [index for part in batch for index in _indices(part)]
            place = f"at step {self.step_count + 1} (training examples {examples})"
            raise Diverged(f"loss is {loss} {place}", self.spec)
        self.step_count += 1
        self.method.after_step(self.model, self.step_count)
        rate = float(self.optimizer.param_groups[0]["lr"])  # of ReLoRA's warm-ups too
        self.logger.log(self.step_count, {"train/loss": loss, "train/lr": rate})
        self.schedule.step()
        count = sum(map(len, batch))
        self._losses.append(loss * count)
        self.tokens += sum(len(part.input_ids) for part in batch)
        self.examples += count

    def state(self) -> dict[str, Any] | None:
        """What the run needs to continue after this step; None if its method cannot."""
        method = self.method.state()
        if method is None:
            return None
        return {
            "parameters": {name: p.cpu() for name, p in self.model.trained_state().items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "method": method,
            "order": state_of(self.order),
            "masks": self.masks.state(),
            "examples_of_epoch": torch.from_numpy(self._examples),
            "losses": self._losses,
            "epochs": self.epochs,
            "costs": asdict(self.costs),
            "counts": {name: getattr(self, name) for name in COUNTS},
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any], prefix: FrozenPrefix | None = None) -> None:
        """Continue from a state.

        The scoring of the last epoch is repeated: what is saved must have the scores of the run,
        and another process, with other threads for example, may round differently.

        Args:
            state: what ``state`` returned for the same run.
            prefix: see ``start_epoch``.
        """
        for name, parameter in self.model.trained_state().items():
            parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.method.restore(state["method"])
        restore(self.order, state["order"])
        self.masks.restore(state["masks"])
        self.epochs = state["epochs"][: self.spec.train.epochs - 1]
        self.costs = Costs(**state["costs"])
        for name, value in state["counts"].items():
            setattr(self, name, value)
        done = self.step_count - len(self.epochs) * self.steps_per_epoch
        if done:
            self._begin(state["examples_of_epoch"].numpy(), done, prefix)
            self._losses = state["losses"]

    def end_epoch(self, scores: dict[str, float]) -> None:
        """Record the validation scores after an epoch, by name.

        Raises:
            Diverged: a score is NaN or infinite.
        """
        scores = {name: float(score) for name, score in scores.items()}  # not NumPy's types
        for name, score in scores.items():
            if not math.isfinite(score):
                raise Diverged(f"{name} is {score} after epoch {len(self.epochs) + 1}", self.spec)
        self.logger.log(self.step_count, {f"validation/{name}": v for name, v in scores.items()})
        loss = sum(self._losses) / len(self.data)
        self.epochs.append({"epoch": len(self.epochs) + 1, "loss": loss, "scores": scores})

    @property
    def is_done(self) -> bool:
        """Whether the first metric has not improved for ``train.patience`` epochs."""
        patience = self.spec.train.patience
        scores = [next(iter(epoch["scores"].values()), math.nan) for epoch in self.epochs]
        if patience is None or not scores:
            return False
        return len(scores) - 1 - scores.index(max(scores)) >= patience


def _indices(batch: Batch) -> list[int]:
    return [] if batch.index is None else batch.index.tolist()


def batches(
    model: LoraWrapperRoberta,
    data: Encoded,
    size: int,
    order: np.ndarray,
    prefix: FrozenPrefix | None = None,
) -> Iterator[Batch]:
    """Packed batches of ``size`` examples in the given order; the last one may be smaller.

    Args:
        model: determines device and position of a first token.
        data: encoded examples.
        size: examples per batch.
        order: indices of examples, (n,).
        prefix: outputs of the lowest layers on ``data``, if known.
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
        steps: steps of the whole run.
        warmup: share of the steps over which the rate rises.
    """
    rise = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise))

    return factor
