"""SpanTask: find the answer to a question in a passage (SQuAD v1.1 and v2.0).

Answers are found and cut by character offsets into the original passage, never decoded from tokens.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import HELD_OUT, Rows, squad
from ..data.toy import reading
from ..errors import SpecError, counted
from ..spec import DataSpec, Spec, TaskSpec
from . import windows
from .answers import Answer, best_spans, merge, write_files
from .base import Row, Scores, Stock, Task
from .encoding import Encoded
from .metrics import best_threshold, exact_match, references_of, token_f1

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ..model.packing import Batch

COLUMNS = ["question", "context"]  # of every source
NO_ANSWER_WEIGHT = 2.1  # weight of the article's no-answer loss next to mean start and end loss


@dataclass
class SpanArgs:
    """Settings of extractive question answering."""

    unanswerable: bool = False  # a question may have no answer (SQuAD v2)
    # share of the training articles that are held out to choose the no-answer threshold
    held_out: float = 0.0
    stride: int = 128  # tokens that neighboring windows of one passage share
    max_question: int = 64  # tokens of a question; longer ones are cut
    max_answer: int = 30  # tokens of a predicted answer


class SpanTask(Task):
    """Extractive question answering, scored by the official rules.

    The model's output is (T, 2), start and end logits. For SQuAD v2, the article's head has a third
    output, whose value at a window's first token is the log-odds that there is no answer.
    """

    Args = SpanArgs
    reads = frozenset[str]()
    head = "token"
    args: SpanArgs

    def __init__(self, spec: TaskSpec):
        super().__init__(spec)
        self.squad_version = 2 if self.args.unanswerable else 1
        self.draws_split = self.args.held_out > 0
        names = {1: ("f1", "exact_match"), 2: ("f1", "exact", "best_f1", "best_exact")}
        self.metric_names = names[self.squad_version]

    def check(self, spec: Spec) -> None:
        """See ``Task.check``: ``task.args``, and that a window can hold a question and more."""
        args, length = self.args, spec.train.max_length
        if spec.task.columns != COLUMNS:
            reason = f"must be [{','.join(COLUMNS)}]: kind=span reads no other columns"
            raise SpecError("task.columns", spec.task.columns, reason)
        for name, low in (("stride", 0), ("max_question", 1), ("max_answer", 1)):
            if getattr(args, name) < low:
                value = getattr(args, name)
                raise SpecError(f"task.args.{name}", value, f"must be {low} or more")
        if not 0 <= args.held_out < 1:
            raise SpecError("task.args.held_out", args.held_out, "must be at least 0 and below 1")
        if args.held_out and not args.unanswerable:
            raise SpecError(
                "task.args.held_out",
                args.held_out,
                "chooses a no-answer threshold, which needs task.args.unanswerable=true",
            )
        # RoBERTa's four special tokens; a window must be longer than what it shares with the next
        least = args.max_question + args.stride + 5
        if length < least:
            message = f"must be {least} or more: question, stride and 5"
            raise SpecError("train.max_length", length, message)

    # The model.

    def outputs(self, style: str) -> int:
        """Start and end; for SQuAD v2 with the article's head also "no answer"."""
        return 3 if style == "article" and self.args.unanswerable else 2

    @property
    def stock(self) -> Stock:
        """A question-answering model."""
        return Stock("RobertaForQuestionAnswering", "qa_outputs", "QUESTION_ANS", {"num_labels": 2})

    @property
    def encoding_settings(self) -> Any:
        """The settings of windows."""
        return [self.spec.kind, self.args.stride, self.args.max_question]

    def encode(
        self, rows: list[Row], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Encoded:
        """Windows of question and passage, labeled with first and last token of the answer."""
        return windows.encode(
            rows,
            tokenizer,
            max_length=max_length,
            stride=self.args.stride,
            max_question=self.args.max_question,
        )

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean of start and end cross-entropy, each over a window's own tokens.

        Args:
            logits: (T, 2 or 3).
            batch: a batch with labels (B, 2).
        """
        import torch.nn.functional as F
        from torch.nn.utils.rnn import pad_sequence

        assert batch.labels is not None
        own = logits.split(batch.lengths.tolist())
        grid = pad_sequence(own, batch_first=True, padding_value=float("-inf"))  # (B, L, 2 or 3)
        start, end = (F.cross_entropy(grid[:, :, i], batch.labels[:, i]) for i in (0, 1))
        loss = (start + end) / 2  # ()
        if logits.shape[1] == 3:
            none = (batch.labels[:, 0] == 0).to(logits.dtype)  # (B,)
            no_answer = F.binary_cross_entropy_with_logits(logits[batch.first, 2], none)
            loss = loss + NO_ANSWER_WEIGHT * no_answer
        return loss

    def decode(self, outputs: list[Tensor], rows: list[Row], encoded: Encoded) -> list[Answer]:
        """The best span over all windows of each question.

        Args:
            outputs: (tokens, 2 or 3) for each window.
            rows: questions.
            encoded: their windows.
        """
        assert encoded.row is not None and encoded.offsets is not None
        spans: list[list[tuple[float, str]]] = [[] for _ in rows]
        nulls = np.full(len(rows), np.inf)  # (rows,)
        with_null = outputs[0].shape[1] == 3
        for window, output in enumerate(outputs):
            row, logits = int(encoded.row[window]), output.numpy()
            offsets = encoded.offsets[encoded.starts[window] : encoded.starts[window + 1]]
            # The lowest score over the windows applies: the answer may be in only one of them.
            null = logits[0, 2] if with_null else logits[0, 0] + logits[0, 1]
            nulls[row] = min(nulls[row], float(null))
            spans[row] += best_spans(logits, offsets, rows[row]["context"], self.args.max_answer)
        return [
            merge(found, null, absolute=with_null) for found, null in zip(spans, nulls, strict=True)
        ]

    # From answers to numbers.

    def tune(self, predictions: list[Answer], rows: list[Row]) -> float | None:
        """The no-answer threshold with the best F1; None for SQuAD v1."""
        if not self.args.unanswerable:
            return None
        return best_threshold(self._scores(predictions, rows)[1], *_facts(predictions, rows))[1]

    def score(
        self,
        predictions: list[Answer],
        rows: list[Row],
        split: str = "validation",
        threshold: float | None = None,
    ) -> Scores:
        """The official metrics under the official names, as fractions.

        For SQuAD v2 at ``threshold`` (default 0) and, as ``best_*``, at the threshold that is best
        for these rows; a name that ends in ``_thresh`` is a threshold, not a score.
        """
        exact, f1 = self._scores(predictions, rows)
        if not self.args.unanswerable:
            found = {"f1": float(f1.mean()), "exact_match": float(exact.mean())}
            return self._ordered(found, split)
        facts = null_odds, has_answer, _ = _facts(predictions, rows)
        threshold = 0.0 if threshold is None else threshold
        unanswered = null_odds > threshold
        scores = {}
        for name, values in (("f1", f1), ("exact", exact)):
            final = np.where(unanswered, (~has_answer).astype(float), values)
            scores[name] = float(final.mean())
            for part, chosen in (("HasAns", has_answer), ("NoAns", ~has_answer)):
                if chosen.any():
                    scores[f"{part}_{name}"] = float(final[chosen].mean())
            scores[f"best_{name}"], scores[f"best_{name}_thresh"] = best_threshold(values, *facts)
        return {**self._ordered(scores, split), "chosen_thresh": threshold}

    def _ordered(self, scores: Scores, split: str) -> Scores:
        """The split's own metrics first, then the others."""
        metrics = self.spec.optional.get(split, self.spec.metrics)
        return {name: scores[name] for name in (*metrics, *scores)}

    def _scores(self, answers: list[Answer], rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
        """Exact match and F1 of the answer texts before any threshold, each (n,)."""
        version = self.squad_version
        golds = [references_of(row["answers"]["text"], version=version) for row in rows]
        pairs = [(answer.text, gold) for answer, gold in zip(answers, golds, strict=True)]
        exact = [exact_match(text, gold) for text, gold in pairs]
        return np.array(exact), np.array([token_f1(*pair, version=version) for pair in pairs])

    def reference_points(
        self, train: list[Row], rows: list[Row], split: str
    ) -> dict[str, Scores | None]:
        """``chance`` never answers."""
        silent = [Answer("", 1.0, []) for _ in rows]
        chance = self.score(silent, rows, split)
        points = {**super().reference_points(train, rows, split), "chance": chance}
        if "clean_answer" in rows[0]:
            texts = [row["clean_answer"] for row in rows]
            perfect = [Answer(text, -1.0 if text else 1.0, []) for text in texts]
            points["ceiling"] = self.score(perfect, rows, split)
        return points

    def stored(self, predictions: list[Answer], rows: list[Row]) -> pd.DataFrame:
        """Answer texts before any threshold with their null odds, and all accepted texts."""
        import pandas as pd

        columns = {
            "prediction": [answer.text for answer in predictions],
            "null_odds": [answer.null_odds for answer in predictions],
            "reference": [list(row["answers"]["text"]) for row in rows],
        }
        return pd.DataFrame(columns)

    def restored(self, table: pd.DataFrame) -> tuple[list[Answer], list[Row]]:
        """Answers, and rows with their accepted texts."""
        pairs = zip(table["prediction"], table["null_odds"], strict=True)
        rows = [{"answers": {"text": list(texts)}} for texts in table["reference"]]
        return [Answer(text, odds, []) for text, odds in pairs], rows

    def write_predictions(
        self, folder: Path, predictions: list[Answer], rows: list[Row], threshold: float | None
    ) -> None:
        """Files that the official scripts read (answers.write_files)."""
        found = {row["id"]: answer for row, answer in zip(rows, predictions, strict=True)}
        write_files(folder, found, (threshold or 0.0) if self.args.unanswerable else None)

    # Where rows come from.

    def generate(self, data: DataSpec, split: str) -> list[Row]:
        """Questions with ``answers`` and, before noise, ``clean_answer``."""
        return reading.rows(self.spec, data, split, unanswerable=self.args.unanswerable)

    def read(self, path: Path, split: str, skip_bad: bool) -> Rows:
        """Rows of a SQuAD file."""
        unanswerable = self.args.unanswerable
        return squad.read(path, self.spec.name, unanswerable=unanswerable, skip_bad=skip_bad)

    def hub_columns(self, split: str) -> list[str]:
        """The columns of SQuAD's repositories."""
        return ["id", "title", *COLUMNS, "answers"]

    def check_rows(self, rows: list[Row], split: str) -> None:
        """Check texts, ids, and answers against their passages."""
        squad.check_rows(rows, self.spec.name, unanswerable=self.args.unanswerable)

    def divide(self, splits: dict[str, Rows], seed: int) -> dict[str, Rows]:
        """Move the share ``held_out`` of the training articles into the split HELD_OUT."""
        if self.args.held_out == 0:
            return splits
        train, held_out = squad.by_article(splits["train"], self.args.held_out, seed)
        for part, use in ((train, "training"), (held_out, "the no-answer threshold")):
            _warn_of_one_kind(part, use)
        return {**splits, "train": train, HELD_OUT: held_out}


def _warn_of_one_kind(part: Rows, use: str) -> None:
    """Report a part whose questions all have an answer, or all lack one.

    In SQuAD v2.0, a third of the training articles have no unanswerable question.
    """
    kinds = {bool(row["answers"]["text"]) for row in part.rows}
    if len(kinds) == 1:
        found = "an answer" if kinds.pop() else "no answer"
        questions = counted(len(part.rows), "question")
        print(
            f"{part.source}: all {questions} for {use} have {found}; another data.seed divides "
            "the articles differently",
            file=sys.stderr,
        )


def _facts(answers: list[Answer], rows: list[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """null_odds, has_answer and empty of :func:`best_threshold`, each (n,)."""
    return (
        np.array([answer.null_odds for answer in answers]),
        np.array([bool(row["answers"]["text"]) for row in rows]),
        np.array([not answer.text for answer in answers]),
    )


TASK = SpanTask
