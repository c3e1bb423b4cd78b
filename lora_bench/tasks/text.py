"""TextTask: one or two texts in, one label out. All of GLUE is this task with other settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Rows, columns, table
from ..data.toy import texts
from ..errors import SpecError
from ..spec import DataSpec, Spec, TaskSpec
from .base import Row, Scores, Stock, Task, check_distinct
from .encoding import Encoded
from .metrics import CLASSIFICATION, REGRESSION, UndefinedScore, compute, score_name

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ..model.packing import Batch

ARTICLE_RANGE = [0.0, 5.0]  # of head=article for a regression (model/heads.py)


class TextTask(Task):
    """Classification (``spec.labels``) or regression (``spec.value_range``) of one or two texts."""

    reads = columns.SETTINGS | {"labels", "value_range", "submission"}
    takes_evaluate = True

    def __init__(self, spec: TaskSpec):
        super().__init__(spec)
        self.regression = not spec.labels
        known = REGRESSION if self.regression else CLASSIFICATION
        # F1 is computed for the second of two classes.
        self.metric_names = [n for n in known if n != "f1" or len(spec.labels) == 2]

    def check(self, spec: Spec) -> None:
        """See ``Task.check``: labels, columns and metrics against each other."""
        task = spec.task
        if len(task.columns) not in (1, 2):
            raise SpecError("task.columns", task.columns, "must name one or two text columns")
        check_distinct("task.columns", task.columns)
        if reserved := {"label", "clean_label"} & set(task.columns):
            reason = (
                f"{', '.join(sorted(reserved))} cannot be a text; task.local.columns renames it"
            )
            raise SpecError("task.columns", task.columns, reason)
        if bool(task.labels) == bool(task.value_range):
            raise SpecError(
                "task.labels", task.labels, "exactly one of labels and value_range must be set"
            )
        low_high = task.value_range
        rising = len(low_high) == 2 and low_high[0] < low_high[1]
        if low_high and not (rising and all(map(math.isfinite, low_high))):
            raise SpecError("task.value_range", low_high, "must be the lowest and highest target")
        if low_high and spec.head == "article" and low_high != ARTICLE_RANGE:
            reason = f"gives values in task.value_range={ARTICLE_RANGE}; this task has {low_high}"
            raise SpecError("head", spec.head, reason)
        if task.labels and not 1 < len(task.labels) == len(set(task.labels)):
            raise SpecError("task.labels", task.labels, "must be two or more different names")
        columns.check(task)
        if spec.data.source == "local":
            columns.check_optional(task)
        if spec.data.source == "toy":
            texts.generator(task)

    def outputs(self, style: str) -> int:
        """One for each label; 1 for regression."""
        return len(self.spec.labels) or 1

    @property
    def stock(self) -> Stock:
        """A sequence classifier; for regression one with a single label."""
        labels = self.spec.labels or [self.spec.name]
        problem = "regression" if self.regression else "single_label_classification"
        config = {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "problem_type": problem,
        }
        return Stock("RobertaForSequenceClassification", "classifier", "SEQ_CLS", config)

    def encode(
        self, rows: list[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Encoded:
        """Tokenize; if a pair is too long, the longer text is truncated first."""
        tokens = tokenizer(
            *([row[column] for row in rows] for column in self.spec.columns),
            truncation="longest_first",
            max_length=max_length,
            return_attention_mask=False,
        )
        labels = self.references(rows) if "label" in rows[0] else None
        return Encoded.from_lists(tokens["input_ids"], tokens.get("token_type_ids"), labels)

    def references(self, rows: list[Row], column: str = "label") -> np.ndarray:
        """Labels of the rows, (n,) int64 or float32."""
        return np.array(
            [row[column] for row in rows], dtype=np.float32 if self.regression else np.int64
        )

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch: logits (B, outputs), labels (B,) -> ()."""
        import torch.nn.functional as F

        assert batch.labels is not None
        if self.regression:
            # Logits are (B, 1), labels are (B,): without [:, 0], mse_loss broadcasts them to
            # (B, B), learns from B * B pairs and only warns. It cost the article ten points of
            # Pearson correlation.
            return F.mse_loss(logits[:, 0], batch.labels.to(logits.dtype))  # (B,), (B,) -> ()
        return F.cross_entropy(logits, batch.labels)  # (B, outputs), (B,) -> ()

    def decode(self, outputs: list[Tensor], rows: list[Row], encoded: Encoded) -> np.ndarray:
        """Predictions (n,): class indices, or values clipped to the range of the targets."""
        logits = np.stack([output.numpy() for output in outputs])  # (n, outputs)
        if self.regression:
            low, high = self.spec.value_range
            return logits[:, 0].clip(low, high)
        return logits.argmax(axis=1)

    def score(
        self,
        predictions: np.ndarray,
        rows: list[Row],
        split: str = "validation",
        threshold: float | None = None,
    ) -> Scores:
        """The split's metrics; optional splits have their own."""
        references = self.references(rows)
        metrics = self.spec.optional.get(split, self.spec.metrics)
        return {score_name(name): compute(name, predictions, references) for name in metrics}

    def reference_points(
        self, train: list[Row], rows: list[Row], split: str
    ) -> dict[str, Scores | None]:
        """``chance`` predicts the most common training label, or the mean training value.

        It is None if a metric of ``evaluate`` is undefined for equal predictions.
        """
        labels = self.references(train)
        guess = labels.mean() if self.regression else np.bincount(labels).argmax()
        chance: Scores | None
        try:
            chance = self.score(np.full(len(rows), guess), rows, split)
        except UndefinedScore:
            chance = None
        points = {**super().reference_points(train, rows, split), "chance": chance}
        if "clean_label" in rows[0]:
            points["ceiling"] = self.score(self.references(rows, "clean_label"), rows, split)
            if len(set(labels.tolist())) > 1:  # a linear classifier needs two classes
                points["bag_of_words"] = self.score(self._bag_of_words(train, rows), rows, split)
        return points

    def _bag_of_words(self, train: list[Row], rows: list[Row]) -> np.ndarray:
        """Predictions of a linear model on word counts; each text column has its own words."""
        import pandas as pd
        from sklearn.compose import ColumnTransformer
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline

        counts = ColumnTransformer(
            [(column, CountVectorizer(), column) for column in self.spec.columns]
        )
        linear = Ridge() if self.regression else LogisticRegression(max_iter=2000)
        model = make_pipeline(counts, linear)
        model.fit(pd.DataFrame(train), self.references(train))
        return model.predict(pd.DataFrame(rows))

    def stored(self, predictions: np.ndarray, rows: list[Row]) -> pd.DataFrame:
        """Names of labels, or values."""
        import pandas as pd

        table = pd.DataFrame({"prediction": predictions, "reference": self.references(rows)})
        return table if self.regression else table.map(self.spec.labels.__getitem__)

    def restored(self, table: pd.DataFrame) -> tuple[np.ndarray, list[Row]]:
        """Class indices, or values."""
        if not self.regression:
            table = table[["prediction", "reference"]].map(self.spec.labels.index)
        return table["prediction"].to_numpy(), [{"label": label} for label in table["reference"]]

    def submission_value(self, prediction: Any) -> str:
        """The label as the official files write it, or the value with three or more decimals."""
        if not self.regression:
            return columns.label_values(self.spec)[prediction]
        low, high = self.spec.value_range
        return f"{prediction:.{max(3, 3 - math.floor(math.log10(high - low)))}f}"

    def generate(self, data: DataSpec, split: str) -> list[Row]:
        """Rows with ``label`` and, before noise, ``clean_label``."""
        return texts.rows(self.spec, data, split)

    def read(self, path: Path, split: str, skip_bad: bool) -> Rows:
        """Rows of a file: GLUE's own, or CSV or JSON lines."""
        return table.read(path, self.spec, split, skip_bad=skip_bad)

    def check_rows(self, rows: list[Row], split: str) -> None:
        """Check texts, and labels except of test splits."""
        table.check_rows(rows, self.spec, split)

    def hub_columns(self, split: str) -> list[str]:
        """Text columns and the label, which test splits lack."""
        return [*self.spec.columns] if split.startswith("test") else [*self.spec.columns, "label"]


TASK = TextTask
