"""TextTask: one or two texts in, one label out. All of GLUE is this task with other facts."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..packing import Batch
from ..spec import TaskSpec
from .encoding import Encoded
from .metrics import METRICS


class TextTask:
    """Classification (``spec.labels``) or regression (``spec.value_range``) of one or two texts."""

    def __init__(self, spec: TaskSpec):
        self.spec = spec
        self.regression = not spec.labels
        self.outputs = 1 if self.regression else len(spec.labels)

    def encode(self, rows: list[dict], tokenizer, max_length: int) -> Encoded:
        """Tokenise; pairs are cut longest part first to ``max_length`` tokens, special ones included."""
        texts = [[row[column] for row in rows] for column in self.spec.columns]
        tokens = tokenizer(*texts, truncation="longest_first", max_length=max_length, return_attention_mask=False)
        ids = tokens["input_ids"]
        types = tokens.get("token_type_ids") or [[0] * len(x) for x in ids]
        labels = self.references(rows) if "label" in rows[0] else None
        return Encoded.from_lists(ids, types, labels)

    def references(self, rows: list[dict], column: str = "label") -> np.ndarray:
        """Labels of the rows, (n,)."""
        return np.array([row[column] for row in rows], dtype=np.float32 if self.regression else np.int64)

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

    def decode(self, outputs: list[Tensor]) -> np.ndarray:
        """Predictions (n,): class indices, or values cut to the range of the targets."""
        logits = torch.stack(outputs).numpy()
        if self.regression:
            return np.clip(logits[:, 0], *self.spec.value_range)
        return logits.argmax(axis=1)

    def score(self, predictions: np.ndarray, rows: list[dict]) -> dict[str, float]:
        """Every metric of the task over all examples at once, never a mean of batch means."""
        references = self.references(rows)
        return {name: METRICS[name](predictions, references) for name in self.spec.metrics}

    def ceiling(self, rows: list[dict]) -> dict[str, float] | None:
        """Score of a perfect model against noisy labels; None where the clean labels are not known."""
        if "clean_label" not in rows[0]:
            return None
        return self.score(self.references(rows, "clean_label"), rows)

    def chance(self, train: list[dict], rows: list[dict]) -> dict[str, float]:
        """Score of the best constant guess: the commonest training class, or the mean training value."""
        labels = self.references(train)
        guess = labels.mean() if self.regression else np.bincount(labels).argmax()
        return self.score(np.full(len(rows), guess), rows)
