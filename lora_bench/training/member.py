"""The runs of a group during execution, from their models to their records."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .. import record as records
from ..checkpoint import ADAPTER, init_adapter, load_adapter, save_adapter, start_from
from ..methods import get_method
from ..model.build import SharedEncoder, build
from ..model.group import Group
from ..model.parameters import parameter_counts, parameter_text
from ..model.streams import Streams
from ..model.wrapper import LoraWrapperRoberta
from ..provenance import provenance
from . import checkpoint
from .evaluation import BestEpoch, Outputs, outputs_of, score, write_predictions
from .fit import RestoreError, Scoring, fit
from .loggers import make_logger
from .progress import stage
from .stop import Stopped, StopSignals
from .trainee import Trainee

if TYPE_CHECKING:
    from .run import Outcome

TOLERANCE = 1e-6  # on the difference of scores before saving an adapter and after loading it


class Member:
    """A run of a group.

    Args:
        outcome: outcome of the run, to be filled in.
        group: number of runs that are trained with it, including itself.
    """

    trainee: Trainee  # set by ``begin``, like the next one
    keeper: BestEpoch
    reloaded: LoraWrapperRoberta  # set by ``reload``

    def __init__(self, outcome: "Outcome", group: int):
        self.outcome, self.run, self.folder = outcome, outcome.run, outcome.folder
        # of the largest group it was trained in: its costs are a share even if it continues alone
        self.group = max(group, (outcome.checkpoint or {}).get("largest_group", 1))

    @property
    def failed(self) -> bool:
        """Whether the run has failed."""
        return self.outcome.error is not None

    def attempt(self, part: Callable[..., None], *arguments: Any) -> None:
        """Do a part of the run, unless it has failed; an exception fails only this run."""
        if not self.failed:
            try:
                part(*arguments)
            except Exception as error:
                self.outcome.fail(error)

    def fail(self, error: Exception) -> None:
        """Record why the run failed, unless it has already failed."""
        if not self.failed:
            self.outcome.fail(error)

    def begin(self, shared: SharedEncoder | None) -> None:
        """Encode the data and build the model."""
        run, spec, prepared = self.run, self.run.spec, self.run.prepared
        record = self.outcome.record
        record.provenance = provenance(spec.device, torch.get_num_threads())
        record.data = prepared.facts
        logger = make_logger(spec, run.key, self.folder)
        try:
            train = prepared.encoded["train"]
            with stage(f"{run.key}: building the model", shown=spec.progress):
                self.trainee = Trainee(spec, prepared.task, train, logger, shared)
            if spec.init_from is not None:
                start_from(init_adapter(spec), self.trainee.model, spec.method)
        except BaseException:
            logger.close()
            raise
        self.keeper = BestEpoch(run, self.folder)
        if self.outcome.checkpoint is not None:
            self.keeper.restore(self.outcome.checkpoint["best"])

    def checkpoint(self, group: Sequence[str]) -> None:
        """Write what the run needs to continue, unless its method does not support that.

        Args:
            group: keys of the runs that are trained with it.
        """
        state = self.trainee.state()
        if state is not None:
            state["best"] = self.keeper.state()
            state["device"] = self.run.spec.device
            state["largest_group"] = self.group
            try:
                checkpoint.write(self.folder, self.run.key, group, state)
            except OSError as error:  # the earlier one is still there, and the run can go on
                reason = f"no checkpoint was written ({error.strerror or error})"
                print(f"{self.run.key}: {reason}", file=sys.stderr)

    def save(self) -> None:
        """Save the trained model, and record the curves and costs of training."""
        record, trainee = self.outcome.record, self.trainee
        spec, cell = self.run.spec, self.run.identity.cell
        record.adapter_bytes = save_adapter(self.folder / ADAPTER, trainee.model, spec, cell)
        record.parameters = parameter_counts(trainee.model)
        (self.folder / "parameters.md").write_text(parameter_text(trainee.model), encoding="utf-8")
        record.epochs, record.last = trainee.epochs, trainee.epochs[-1]
        record.best = trainee.epochs[self.keeper.index]
        record.streams = trainee.streams.used
        record.train_seconds, record.eval_seconds = trainee.costs.train, trainee.costs.evaluate
        record.examples_per_second = trainee.examples / trainee.costs.train
        record.tokens_per_second = trainee.tokens / trainee.costs.train

    def reload(self, shared: SharedEncoder | None) -> None:
        """Build the run's model again and load the saved adapter."""
        spec, task = self.run.spec, self.run.prepared.task
        with stage(f"{self.run.key}: loading what was saved", shown=spec.progress):
            self.reloaded = build(spec, task, get_method(spec.method), Streams(spec.seed), shared)
            load_adapter(self.folder / ADAPTER, self.reloaded)

    def end(self, outputs: Outputs) -> None:
        """Write predictions and record.

        Args:
            outputs: outputs of the reloaded model.

        Raises:
            RuntimeError: its scores differ from those of the run.
        """
        record = self.outcome.record
        found = score(outputs, self.run.prepared)
        _check_reloaded(record, found.scores)
        assert self.keeper.best is not None
        write_predictions(self.run, self.folder, found, self.keeper.best)
        record.status = "ok"
        records.write(self.folder, record)
        (self.folder / "traceback.txt").unlink(missing_ok=True)
        checkpoint.remove(self.folder)


def _check_reloaded(record: records.Record, scores: dict[str, float]) -> None:
    assert record.last is not None
    for name, value in scores.items():
        before = record.last["scores"][name]
        if not abs(value - before) <= TOLERANCE:  # NaN too
            raise RuntimeError(f"{name} was {before} and is {value} after saving and loading")
    record.reloaded = scores


class Members(Scoring):
    """The runs of a group.

    Args:
        outcomes: outcomes of the runs, to be filled in.
        shared: their encoder; None: a single run with its own encoder.
        stop: signals that ask the process to stop.
        place: the runs' place in their sweep, as the progress bar shows it.
    """

    def __init__(
        self,
        outcomes: Sequence["Outcome"],
        shared: SharedEncoder | None,
        stop: StopSignals,
        place: str = "",
    ):
        self.members = [Member(outcome, len(outcomes)) for outcome in outcomes]
        self.shared, self.stop, self.place = shared, stop, place
        self._written = time.monotonic()  # time of the last checkpoint
        self._of: dict[Trainee, Member] = {}
        # the members whose models were last scored in one pass
        self._scored_with: dict[Member, tuple[Member, ...]] = {}

    def train(self) -> None:
        """Build the models and train them."""
        for member in self.members:
            member.attempt(member.begin, self.shared)
        self._of = {member.trainee: member for member in self.members if not member.failed}
        together = tuple(self._of.values())
        self._scored_with = dict.fromkeys(together, together)
        try:
            fit(list(self._of), self, self._name(), self._states())
        except RestoreError as error:
            for member in self._of.values():
                member.fail(error)
                checkpoint.remove(member.folder)  # the next attempt starts over
        finally:
            for trainee in self._of:
                trainee.logger.close()

    def _states(self) -> list[dict[str, Any]] | None:
        """The states from which the runs continue; the runs were grouped by them."""
        found = [member.outcome.checkpoint for member in self._of.values()]
        states = [state for state in found if state is not None]
        if not states:
            return None
        for member in self._of.values():
            steps, total = states[0]["counts"]["step_count"], member.trainee.total_steps
            print(f"{member.run.key}: continues from step {steps} of {total}", file=sys.stderr)
            member.outcome.checkpoint = None  # as large as the model; not needed during training
        return states

    def pause(self, trainees: Sequence[Trainee], *, epoch_ended: bool) -> None:
        """Write checkpoints where they are due; stop where the process was asked to.

        The end of an epoch is a good place: a tenth of the interval is enough there.

        Raises:
            Stopped: the process was asked to stop; checkpoints have been written.
        """
        if not trainees:
            return
        seconds = 60 * trainees[0].spec.train.checkpoint_minutes
        due = time.monotonic() - self._written >= (seconds / 10 if epoch_ended else seconds)
        if not due and self.stop.received is None:
            return
        members = [self._of[trainee] for trainee in trainees]
        keys = [member.run.key for member in members]
        for member in members:
            member.checkpoint(keys)
        self._written = time.monotonic()
        if self.stop.received is not None:
            steps, total = trainees[0].step_count, trainees[0].total_steps
            raise Stopped(f"{self.stop.received} at step {steps} of {total}")

    def _name(self) -> str:
        first, others = self.members[0].run.key, len(self.members) - 1
        place = f"{self.place}: " if self.place else ""
        return f"{place}{first} and {others} more" if others else f"{place}{first}"

    def outputs(self, group: Group, trainees: Sequence[Trainee]) -> list[Outputs]:
        """See Scoring."""
        together = tuple(self._of[trainee] for trainee in trainees)
        self._scored_with |= dict.fromkeys(together, together)
        return self._outputs(group)

    def _outputs(self, group: Group) -> list[Outputs]:
        run = self.members[0].run
        return outputs_of(group, run.prepared, run.spec)

    def score(self, trainee: Trainee, outputs: Outputs) -> dict[str, float]:
        """See Scoring."""
        return self._of[trainee].keeper.score(trainee, outputs)

    def failed(self, trainee: Trainee, error: Exception) -> None:
        """See Scoring."""
        self._of[trainee].fail(error)

    def end(self, peak: int | None) -> None:
        """Save every trained model, score what was saved, and write the records.

        Args:
            peak: memory in bytes while the group was trained.
        """
        for member in self.members:
            member.attempt(member.save)
            _note_group(member, peak)
            member.attempt(member.reload, self.shared)
        # In the passes of the last scoring: in other passes, rounding could change a prediction.
        # A run that failed, or was last scored in another pass, takes part with its trained model.
        passes = {self._scored_with[member]: None for member in self.members if not member.failed}
        for together in passes:
            self._end(together)

    def _end(self, together: tuple[Member, ...]) -> None:
        """Score the reloaded models of the runs that were scored last in a pass."""
        ending = [not m.failed and self._scored_with[m] == together for m in together]
        models = [
            m.reloaded if ends else m.trainee.model
            for m, ends in zip(together, ending, strict=True)
        ]
        try:
            outputs = self._outputs(Group(models))
        except Exception as error:
            for member, ends in zip(together, ending, strict=True):
                if ends:
                    member.fail(error)
            return
        for member, own, ends in zip(together, outputs, ending, strict=True):
            if ends:
                member.attempt(member.end, own)


def _note_group(member: Member, peak: int | None) -> None:
    """Record the group: memory belongs to it as a whole; a member's seconds are its share."""
    record = member.outcome.record
    if member.group == 1:
        record.peak_memory_bytes = peak
    elif not member.failed:
        costs = member.trainee.costs
        record.group = {
            "size": member.group,
            "train_seconds": costs.group_train,
            "eval_seconds": costs.group_evaluate,
            "peak_memory_bytes": peak,
        }
