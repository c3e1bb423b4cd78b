"""The protocol that every kind of task implements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..checks import typed_args
from ..data import Rows
from ..errors import SpecError
from ..spec import DataSpec, Spec, TaskSpec

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from ..model.packing import Batch
    from .encoding import Encoded

Row = dict[str, Any]
Predictions = Any  # one entry for each row: an array or a list, depending on the kind
Scores = dict[str, float]


@dataclass(frozen=True)
class Stock:
    """The transformers model that is equivalent to an encoder with this task's standard head."""

    model: str  # name of the class in transformers
    head: str  # the attribute of that class that is the head
    peft: str  # name of the task in peft.TaskType
    config: dict[str, Any] = field(default_factory=dict)  # settings of its configuration


class Task:
    """One task. The methods without a default raise NotImplementedError.

    Args:
        spec: settings of the task, as its preset gives them.

    Raises:
        SpecError: an entry of ``spec.args`` is unknown or of the wrong type.
    """

    # Dataclass of the settings that only this kind has (task.args.*); None if it has none.
    Args: ClassVar[type | None] = None
    # The settings among OPTIONAL_SETTINGS that this kind uses.
    reads: ClassVar[frozenset[str]] = frozenset({"labels"})
    # "sequence": one output row for each example, from its first token; "token": one per token.
    head: ClassVar[str] = "sequence"
    # Names that task.metrics may hold.
    metric_names: Sequence[str] = ()
    # Whether it may also name metrics of the ``evaluate`` library; higher must be better.
    takes_evaluate: ClassVar[bool] = False
    # Whether ``divide`` draws at random, from data.seed.
    draws_split: bool = False

    def __init__(self, spec: TaskSpec):
        self.spec = spec
        self.args: Any = arguments(spec, self.Args)

    def check(self, spec: Spec) -> None:
        """Check settings that depend on each other; runs without torch and before data is read.

        Raises:
            SpecError: names the setting, its value and what is allowed.
        """

    # The model.

    @property
    def per_token(self) -> bool:
        """Whether the head takes every token, (T, D), or each example's first one, (B, D)."""
        return self.head == "token"

    def outputs(self, style: str) -> int:
        """Number of outputs of the head for each example or token.

        Args:
            style: style of the head: ``standard`` or ``article``.
        """
        return len(self.spec.labels)

    def make_head(self, style: str, hidden_size: int, dropout: float) -> nn.Module:
        """The head that maps hidden states to logits.

        Args:
            style: ``standard`` (transformers' own) or ``article``.
            hidden_size: D, hidden size of the encoder.
            dropout: dropout probability on the head's input.
        """
        from ..model.heads import HEADS

        return HEADS[self.head, style](hidden_size, self.outputs(style), dropout)

    @property
    def stock(self) -> Stock | None:
        """The counterpart in transformers; None if there is none."""
        return None

    # From rows to tensors and back.

    @property
    def encoding_settings(self) -> Any:
        """What ``encode`` depends on besides rows, tokenizer and length; JSON-serializable."""
        return [self.spec.kind, self.spec.columns, self.spec.labels, self.spec.args]

    def encode(
        self, rows: list[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Encoded:
        """Tokenized rows with their labels.

        Args:
            rows: rows of one split.
            tokenizer: tokenizer of the encoder.
            max_length: maximum number of tokens of an example, including special tokens.
        """
        raise NotImplementedError

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch, ().

        Args:
            logits: (B, outputs) or, with a token head, (T, outputs).
            batch: a batch with its labels.
        """
        raise NotImplementedError

    def terms(self, batch: Batch) -> int:
        """The number of terms that ``loss`` averages: the weight of a part of a step."""
        return len(batch)

    def split(self, logits: Tensor, batch: Batch) -> list[Tensor]:
        """Logits of each example in float32 on the CPU: (outputs,) or (tokens, outputs)."""
        rows = logits.float().cpu()
        return list(rows.split(batch.lengths.tolist()) if self.per_token else rows)

    def decode(self, outputs: list[Tensor], rows: list[Row], encoded: Encoded) -> Predictions:
        """The prediction for each row.

        Args:
            outputs: outputs for each encoded example, as ``split`` gives them.
            rows: the rows that were encoded.
            encoded: the same rows, encoded.
        """
        raise NotImplementedError

    # From predictions to numbers.

    def tune(self, predictions: Predictions, rows: list[Row]) -> float | None:
        """A decision threshold chosen on held-out training rows; None if the kind has none."""
        return None

    def score(
        self,
        predictions: Predictions,
        rows: list[Row],
        split: str = "validation",
        threshold: float | None = None,
    ) -> Scores:
        """Scores over all rows at once, as fractions (1.0 is perfect), task.metrics first.

        Args:
            predictions: one prediction for each row.
            rows: the rows with their references.
            split: name of the split; optional splits may have metrics of their own.
            threshold: threshold that ``tune`` chose.
        """
        raise NotImplementedError

    def reference_points(
        self, train: list[Row], rows: list[Row], split: str
    ) -> dict[str, Scores | None]:
        """Scores to compare a model with; None for an unknown one.

        ``chance`` is a constant guess. For generated data, ``ceiling`` is a
        perfect model scored against the noisy labels and ``bag_of_words`` a linear model.
        """
        return {"chance": None, "ceiling": None, "bag_of_words": None}

    def stored(self, predictions: Predictions, rows: list[Row]) -> pd.DataFrame:
        """What a run stores with its record, one line per row.

        Returns:
            The columns ``prediction`` and ``reference``, and others if needed, with strings,
            numbers or lists of these.
        """
        raise NotImplementedError

    def restored(self, table: pd.DataFrame) -> tuple[Predictions, list[Row]]:
        """What ``score`` needs, from what ``stored`` returned.

        Returns:
            Predictions, and rows with only their references.

        Raises:
            NotImplementedError: the kind does not read its own tables.
        """
        raise NotImplementedError

    def write_predictions(
        self, folder: Path, predictions: Predictions, rows: list[Row], threshold: float | None
    ) -> None:
        """Write files that an official scorer of the task reads; by default none.

        Args:
            folder: folder of the split, which may not exist yet.
            predictions: one prediction for each row.
            rows: the rows with their references.
            threshold: threshold that ``tune`` chose.
        """

    def submission_value(self, prediction: Any) -> str:
        """A prediction in the format of the test server, for tasks with ``task.submission``."""
        raise NotImplementedError

    # Where rows come from.

    def generate(self, data: DataSpec, split: str) -> list[Row]:
        """Generated rows of a split (``data=toy``), determined by ``data.seed``.

        Raises:
            SpecError: there is no generator.
        """
        raise SpecError("data.source", data.source, f"task={self.spec.name} has no generated data")

    def read(self, path: Path, split: str, skip_bad: bool) -> Rows:
        """Rows of an official file (``data=local``).

        Args:
            path: path of the file.
            split: the split in it.
            skip_bad: skip malformed rows and list them, instead of stopping.

        Raises:
            DataError: names the file, the line and what is wrong with it.
            SpecError: the kind has no reader.
        """
        raise SpecError("data.source", "local", f"kind={self.spec.kind} has no reader of files")

    def hub_columns(self, split: str) -> list[str]:
        """Columns to read from the hub (``data=hub``)."""
        return [*self.spec.columns, "label"]

    def check_rows(self, rows: list[Row], split: str) -> None:
        """Check rows of the hub, whose columns and names of labels were checked; by default none.

        Raises:
            ValueError: names the row and what is wrong with it.
        """

    def divide(self, splits: dict[str, Rows], seed: int) -> dict[str, Rows]:
        """Derive splits from those that were read; unchanged by default.

        Args:
            splits: splits by name, including ``train``.
            seed: ``data.seed``.
        """
        return splits


def check_distinct(path: str, names: Sequence[str]) -> None:
    """Refuse a list with duplicates.

    Raises:
        SpecError: names the setting.
    """
    if len(set(names)) < len(names):
        raise SpecError(path, f"[{','.join(names)}]", "must not contain duplicates")


def arguments(spec: TaskSpec, schema: type | None) -> Any:
    """``spec.args`` as an instance of ``schema``, with its defaults; None without a schema.

    Raises:
        SpecError: an entry is unknown, missing or of the wrong type.
    """
    known = [] if schema is None else [entry.name for entry in fields(schema)]
    for name, value in spec.args.items():
        if name not in known:
            allowed = f"has only {', '.join(known)}" if known else "has no task.args"
            raise SpecError(f"task.args.{name}", value, f"kind={spec.kind} {allowed}")
    return None if schema is None else typed_args("task.args", spec.args, schema)
