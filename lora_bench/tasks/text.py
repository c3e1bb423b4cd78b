"""TextTask: one or two texts in, one label out. All of GLUE is this task with other facts."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from torch import Tensor

from ..model.packing import Batch
from ..spec import TaskSpec
from .encoding import Encoded
from .metrics import METRICS


class TextTask:
    """Classification (``spec.labels``) or regression (``spec.value_range``) of one or two texts."""

    def __init__(self, spec: TaskSpec):
        self.spec = spec
        self.regression = not spec.labels
        self.task_type = "glue"
        self.encoding_settings = [spec.kind, spec.columns]
        self.outputs = 1 if self.regression else len(spec.labels)

    def encode(self, rows: list[dict], tokenizer, max_length: int) -> Encoded:
        """Tokenise; pairs are cut longest part first to ``max_length`` tokens, special ones included."""
        texts = [[row[column] for row in rows] for column in self.spec.columns]
        tokens = tokenizer(
            *texts, truncation="longest_first", max_length=max_length, return_attention_mask=False
        )
        ids = tokens["input_ids"]
        types = tokens.get("token_type_ids") or [[0] * len(x) for x in ids]
        labels = self.references(rows) if "label" in rows[0] else None
        return Encoded.from_lists(ids, types, labels)

    def references(self, rows: list[dict], column: str = "label") -> np.ndarray:
        """Labels of the rows, (n,)."""
        return np.array(
            [row[column] for row in rows], dtype=np.float32 if self.regression else np.int64
        )

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch: logits (B, outputs), labels (B,) -> ()."""
        if self.regression:
            # Logits come out (B, 1), labels are (B,): without [:, 0] mse_loss broadcasts them to (B, B), learns from
            # B * B pairs and only warns. It cost the article ten points of Pearson.
            return F.mse_loss(logits[:, 0].float(), batch.labels)
        return F.cross_entropy(logits.float(), batch.labels)

    def split(self, logits: Tensor, batch: Batch) -> list[Tensor]:
        """Model output of each example of the batch: (outputs,)."""
        return list(logits.float().cpu())

    def decode(self, outputs: list[Tensor], rows: list[dict], encoded: Encoded) -> np.ndarray:
        """Predictions (n,): class indices, or values cut to the range of the targets."""
        logits = torch.stack(outputs).numpy()
        if self.regression:
            return np.clip(logits[:, 0], *self.spec.value_range)
        return logits.argmax(axis=1)

    def score(
        self, predictions: np.ndarray, rows: list[dict], split: str = "validation"
    ) -> dict[str, float]:
        """The split's metrics over all examples at once, never a mean of batch means; optional splits have their own."""
        references = self.references(rows)
        metrics = self.spec.optional.get(split, self.spec.metrics)
        return {name: METRICS[name](predictions, references) for name in metrics}

    def reference_points(
        self, train: list[dict], rows: list[dict], split: str
    ) -> dict[str, dict[str, float] | None]:
        """Scores that put a model's into place, each as ``score`` gives them.

        ``chance``: the best constant guess, the commonest training class or the mean training value. Of generated data
        also ``ceiling``: a perfect model against the noisy labels, and ``bag_of_words``: a linear model on word counts.
        """
        labels = self.references(train)
        guess = np.full(
            len(rows), labels.mean() if self.regression else np.bincount(labels).argmax()
        )
        points = {"chance": self.score(guess, rows, split), "ceiling": None, "bag_of_words": None}
        if "clean_label" in rows[0]:
            points["ceiling"] = self.score(self.references(rows, "clean_label"), rows, split)
            points["bag_of_words"] = self.score(self._bag_of_words(train, rows), rows, split)
        return points

    def _bag_of_words(self, train: list[dict], rows: list[dict]) -> np.ndarray:
        """Predictions of logistic (or ridge) regression on word counts, each text column with words of its own."""
        counts = ColumnTransformer(
            [(column, CountVectorizer(), column) for column in self.spec.columns]
        )
        model = make_pipeline(
            counts, Ridge() if self.regression else LogisticRegression(max_iter=2000)
        )
        model.fit(pd.DataFrame(train), self.references(train))
        return model.predict(pd.DataFrame(rows))
