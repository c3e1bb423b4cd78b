"""The training loop: in each step one forward and backward pass for all runs of a group."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import one_line
from ..model.bf16 import bf16_products
from ..model.group import Group
from ..model.packing import Batch
from .guard import guards
from .memory import is_out_of_memory
from .prefix import FrozenPrefix
from .progress import bar
from .trainee import Trainee


class Scoring:
    """What happens after an epoch and when a run fails. This class scores nothing."""

    def outputs(self, group: Group, trainees: Sequence[Trainee]) -> list[Any]:
        """Outputs of each model of the group for the validation data."""
        return [None] * len(trainees)

    def score(self, trainee: Trainee, outputs: Any) -> dict[str, float]:
        """The scores of one trainee, by name."""
        return {}

    def failed(self, trainee: Trainee, error: Exception) -> None:
        """Called when a trainee drops out; the others continue. This class raises the error."""
        raise error

    def pause(self, trainees: Sequence[Trainee], *, epoch_ended: bool) -> None:
        """Called after each step and epoch, when the state of every trainee is consistent."""


def fit(
    trainees: Sequence[Trainee],
    scoring: Scoring | None = None,
    name: str = "",
    states: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Train runs for their epochs, or until their patience is exhausted.

    Each run keeps its own order of examples, masks, loss, clipping, optimizer and schedule, and
    ends as it does alone, up to float rounding. A run whose loss is not finite, or whose update or
    scoring raises, drops out. When memory runs out, the step is repeated in two halves, and the
    group stays split.

    Args:
        trainees: one, or several with the same number of steps and epochs and a shared encoder.
        scoring: what to do after each epoch.
        name: label of the progress bar.
        states: state of each trainee, after the same step, to continue from; None: start afresh.

    Raises:
        ValueError: the numbers of epochs or of steps differ.
        RestoreError: a state does not fit its trainee.
    """
    if not trainees:
        return
    if len({(t.spec.train.epochs, t.steps_per_epoch) for t in trainees}) > 1:
        raise ValueError("the runs of a group must have equally many epochs and steps")
    loop = Loop(trainees, scoring)
    if states is not None:
        loop.restore(states)
        states = None  # frees their memory, unless the caller holds them
    first, steps = trainees[0], trainees[0].steps_per_epoch
    counts = {"total": first.total_steps, "initial": first.step_count}
    with bar(name, shown=first.spec.progress, unit="step", **counts) as shown:
        for epoch in range(len(first.epochs) + 1, first.spec.train.epochs + 1):
            left = epoch * steps - loop.done
            if left == steps:
                loop.start_epoch()
            for _ in range(left):
                shown.set_postfix(epoch=epoch, loss=f"{loop.step():.3f}", refresh=False)
                shown.update()
            loop.end_epoch()
            if not loop.trainees:
                break


class RestoreError(Exception):
    """A run cannot continue from its checkpoint."""


class Loop:
    """The state of ``fit``: the trainees of each pass; one pass until memory runs out.

    Args:
        trainees: trainees of the group.
        scoring: see ``fit``.
    """

    def __init__(self, trainees: Sequence[Trainee], scoring: Scoring | None = None):
        self.spec = trainees[0].spec  # only settings that all trainees share are read from it
        self.scoring = scoring or Scoring()
        self.passes = [list(trainees)]
        self.done = trainees[0].step_count  # steps of the run so far
        self._groups: dict[tuple[Trainee, ...], Group] = {}
        self._prefix: FrozenPrefix | None = None

    @property
    def trainees(self) -> list[Trainee]:
        """The trainees that are still being trained."""
        return [trainee for members in self.passes for trainee in members]

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Continue every trainee from a state, all after the same step.

        Raises:
            RestoreError: a state does not fit its trainee.
        """
        prefix = self._frozen_prefix()
        for trainee, state in zip(self.trainees, states, strict=True):
            try:
                trainee.restore(state, prefix)
            except Exception as error:  # whatever a state of other code or settings may raise
                raise RestoreError(f"{type(error).__name__}: {one_line(error)}") from error
        self.done = self.trainees[0].step_count

    def start_epoch(self) -> None:
        """Shuffle every trainee's examples."""
        for trainee in self.trainees:
            self._attempt(trainee, None, lambda t, _: t.start_epoch(self._frozen_prefix()))

    def _frozen_prefix(self) -> FrozenPrefix | None:
        trainees = self.trainees
        cached = trainees and trainees[0].spec.train.frozen_prefix == "cache"
        if cached and self._prefix is None:
            started = time.perf_counter()
            with bf16_products(self.spec):
                self._prefix = trainees[0].frozen_prefix()
            _share_training(trainees, [1] * len(trainees), time.perf_counter() - started)
        return self._prefix

    def step(self) -> float:
        """One step of every trainee; returns the loss of one of them."""
        with bf16_products(self.spec):
            losses = [self._step(members) for members in tuple(self.passes) if members]
        self.done += 1
        self.scoring.pause(self.trainees, epoch_ended=False)
        return losses[0] if losses else math.nan

    def _step(self, members: list[Trainee]) -> float:
        started, trainees = time.perf_counter(), tuple(members)
        batches = {trainee: trainee.next_batch() for trainee in trainees}
        found = self._in_passes(members, lambda some: self._backward(some, batches))
        results = dict(zip(trainees, found, strict=True))
        losses = {t: loss for t, loss in results.items() if isinstance(loss, Tensor)}
        guarded = guards(list(losses), list(losses.values()))
        for trainee, result in results.items():
            self._attempt(trainee, result, lambda t, loss: t.apply(loss, guarded.get(t)))
        left = [trainee for trainee in losses if trainee in self.trainees]
        for trainee in left:
            self._attempt(trainee, None, lambda t, _: t.prefetch())
        left = [trainee for trainee in left if trainee in self.trainees]
        # waits for the GPU, which has been computing the step in the meantime
        values = torch.stack([losses[t] for t in left]).tolist() if left else []
        for trainee, value in zip(left, values, strict=True):
            self._attempt(trainee, value, lambda t, loss: t.record(loss, batches[t]))
        tokens = [sum(len(part.input_ids) for part in batches[t]) for t in trainees]
        _share_training(trainees, tokens, time.perf_counter() - started)
        return next(iter(values), math.nan)

    def _backward(
        self, members: Sequence[Trainee], batches: dict[Trainee, list[Batch]]
    ) -> list[Tensor]:
        """The loss of each trainee; the gradients are in their parameters."""
        states = [trainee.masks.state() for trainee in members]
        terms = [[t.task.terms(part) for part in batches[t]] for t in members]
        try:
            parts = [
                self._backward_part(
                    members,
                    [batches[t][i] for t in members],
                    [own[i] / sum(own) for own in terms],
                )
                for i in range(len(terms[0]))
            ]
        except Exception:
            for trainee, state in zip(members, states, strict=True):
                trainee.masks.restore(state)
                trainee.optimizer.zero_grad(set_to_none=True)
            raise
        return list(torch.stack(parts).sum(0))

    def _backward_part(
        self, members: Sequence[Trainee], batches: Sequence[Batch], shares: Sequence[float]
    ) -> Tensor:
        """Add the gradients of a part of each trainee's step; returns its part of each loss.

        Args:
            members: the trainees.
            batches: batches of each trainee.
            shares: share of each batch in its step.
        """
        logits = self._group(members)(batches)
        losses = torch.stack(
            [
                t.task.loss(own, batch) * share
                for t, own, batch, share in zip(members, logits, batches, shares, strict=True)
            ]
        )
        torch.where(losses.isfinite(), losses, 0).sum().backward()
        return losses.detach()

    def end_epoch(self) -> None:
        """Score every trainee."""
        for members in tuple(self.passes):
            if members:
                self._score(members)
        self.scoring.pause(self.trainees, epoch_ended=True)

    def _score(self, members: list[Trainee]) -> None:
        started, trainees = time.perf_counter(), tuple(members)
        outputs = self._in_passes(
            members, lambda some: self.scoring.outputs(self._group(some), some)
        )
        _share_evaluation(trainees, time.perf_counter() - started)
        for trainee, own in zip(trainees, outputs, strict=True):
            started = time.perf_counter()
            self._attempt(trainee, own, lambda t, found: t.end_epoch(self.scoring.score(t, found)))
            _share_evaluation([trainee], time.perf_counter() - started)
            if trainee.is_done:
                self._leave(trainee)

    def _in_passes(
        self, members: list[Trainee], function: Callable[[Sequence[Trainee]], list[Any]]
    ) -> list[Any]:
        """The result of ``function`` for each of the members, or the error that it raised.

        Args:
            members: members of a pass, which is split where memory runs out.
            function: returns a list with an entry for each trainee.
        """
        try:
            return function(members)
        except Exception as error:
            if len(members) == 1 or not is_out_of_memory(error):
                return [error] * len(members)
        place = next(i for i, one in enumerate(self.passes) if one is members)
        halves = members[: len(members) // 2], members[len(members) // 2 :]
        self.passes[place : place + 1] = halves
        self._groups.clear()
        return [result for half in halves for result in self._in_passes(half, function)]

    def _attempt(self, trainee: Trainee, result: Any, use: Callable[[Trainee, Any], None]) -> None:
        """Use a trainee's result of a pass; the trainee drops out if either step failed."""
        try:
            if isinstance(result, Exception):
                raise result
            use(trainee, result)
        except Exception as error:
            self._leave(trainee)
            self.scoring.failed(trainee, error)

    def _leave(self, trainee: Trainee) -> None:
        """Continue without a trainee."""
        for members in self.passes:
            if trainee in members:
                members.remove(trainee)
        self._groups.clear()

    def _group(self, members: Sequence[Trainee]) -> Group:
        """The models of some trainees; rebuilt when the trainees change."""
        key = tuple(members)
        if key not in self._groups:
            models = [trainee.model for trainee in members]
            self._groups[key] = Group(models, fixed=members[0].method.grouped_in(members[0].spec))
        return self._groups[key]


def _share_training(trainees: Sequence[Trainee], parts: Sequence[int], seconds: float) -> None:
    """Add to each trainee its share of the time that all of them took."""
    for trainee, part in zip(trainees, parts, strict=True):
        trainee.costs.train += seconds * part / sum(parts)
        trainee.costs.group_train += seconds


def _share_evaluation(trainees: Sequence[Trainee], seconds: float) -> None:
    for trainee in trainees:
        trainee.costs.evaluate += seconds / len(trainees)
        trainee.costs.group_evaluate += seconds
