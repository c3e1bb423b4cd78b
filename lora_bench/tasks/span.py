"""SpanTask: find the answer to a question in a passage (SQuAD v1.1 and v2.0).

A long passage becomes overlapping windows (the doc_stride scheme of google-research/bert, run_squad.py). Answers are found
and cut by character offsets into the original passage, never decoded from tokens.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..model.packing import Batch
from ..spec import TaskSpec
from .encoding import Encoded
from .metrics import best_threshold, exact_match, references_of, token_f1

N_BEST = 5  # candidates that are kept for each question
NO_ANSWER_WEIGHT = 2.1  # of the article's no-answer loss, beside the mean of start and end loss


@dataclass
class Answer:
    """The best answer text, and how much rather the question has none: a difference of logits, higher is rather none."""

    text: str
    null_odds: float
    n_best: list[tuple[str, float]]  # (text, start logit + end logit), best first


class SpanTask:
    """Extractive question answering; ``spec.unanswerable`` as in SQuAD v2.

    Output of the model: (T, 2) start and end logits; (T, 3) with the article's head, whose third output at the first token
    says that there is no answer.
    """

    def __init__(self, spec: TaskSpec):
        self.spec = spec
        self.task_type = "squad_v2" if spec.unanswerable else "squad_v1"
        self.outputs = None  # the head knows: two, or three
        self.squad_version = 2 if spec.unanswerable else 1
        self.encoding_settings = [spec.kind, spec.stride, spec.max_question]

    def encode(self, rows: list[dict], tokenizer, max_length: int) -> Encoded:
        """Windows of question and passage; a window without the whole (first) answer is labelled (0, 0)."""
        questions = _cut(
            [row["question"].strip() for row in rows], tokenizer, self.spec.max_question
        )
        tokens = tokenizer(
            questions,
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=max_length,
            stride=self.spec.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        row_of = tokens["overflow_to_sample_mapping"]
        ids = tokens["input_ids"]
        types = tokens.get("token_type_ids") or [[0] * len(x) for x in ids]
        offsets, labels = [], []
        for window, row in enumerate(row_of):
            inside = np.array([part == 1 for part in tokens.sequence_ids(window)])
            places = np.where(
                inside[:, None], np.array(tokens["offset_mapping"][window]), -1
            ).astype(np.int32)
            offsets.append(places)
            labels.append(_label(places, rows[row]["answers"]))
        encoded = Encoded.from_lists(ids, types, np.array(labels, dtype=np.int64))
        encoded.row, encoded.offsets = np.array(row_of, dtype=np.int64), np.concatenate(offsets)
        return encoded

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean of the start and the end cross-entropy over each window's own tokens: (T, 2 or 3), labels (B, 2) -> ()."""
        windows = logits.float().split(batch.cu_seqlens.diff().tolist())
        grid = pad_sequence(
            windows, batch_first=True, padding_value=float("-inf")
        )  # (B, L, 2 or 3)
        start, end = (F.cross_entropy(grid[:, :, i], batch.labels[:, i]) for i in (0, 1))
        loss = (start + end) / 2
        if logits.shape[1] == 3:
            none = (batch.labels[:, 0] == 0).float()
            no_answer = F.binary_cross_entropy_with_logits(logits.float()[batch.first, 2], none)
            loss = loss + NO_ANSWER_WEIGHT * no_answer
        return loss

    def split(self, logits: Tensor, batch: Batch) -> list[Tensor]:
        """Model output of each window of the batch: (n, 2 or 3)."""
        return list(logits.float().cpu().split(batch.cu_seqlens.diff().tolist()))

    def decode(self, outputs: list[Tensor], rows: list[dict], encoded: Encoded) -> list[Answer]:
        """The best span over all windows of each question, in the order of ``rows``."""
        spans: list[list[tuple[float, str]]] = [[] for _ in rows]
        nulls = np.full(len(rows), np.inf)
        for window, output in enumerate(outputs):
            row, logits = int(encoded.row[window]), output.numpy()
            places = encoded.offsets[encoded.starts[window] : encoded.starts[window + 1]]
            # the window that is least sure of `no answer` decides: the answer may stand in one window only
            null = logits[0, 2] if logits.shape[1] == 3 else logits[0, 0] + logits[0, 1]
            nulls[row] = min(nulls[row], float(null))
            spans[row] += best_spans(logits, places, rows[row]["context"], self.spec.max_answer)
        article = outputs[0].shape[1] == 3
        return [
            _answer(found, null, article=article) for found, null in zip(spans, nulls, strict=True)
        ]

    def tune(self, answers: list[Answer], rows: list[dict]) -> float:
        """The no-answer threshold with the best F1 on held-out training questions."""
        return best_threshold(self._scores(answers, rows)[1], *self._facts(answers, rows))[1]

    def score(
        self,
        answers: list[Answer],
        rows: list[dict],
        split: str = "validation",
        threshold: float | None = None,
    ) -> dict[str, float]:
        """The official metrics, as shares; v2 at ``threshold`` (default 0) and, looking at these rows, at the best one.

        Names are those of the official scripts; a name that ends in ``_thresh`` is a threshold and no score.
        """
        exact, f1 = self._scores(answers, rows)
        if not self.spec.unanswerable:
            return {"f1": float(f1.mean()), "exact_match": float(exact.mean())}
        facts = null_odds, has_answer, _ = self._facts(answers, rows)
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
        ordered = {name: scores[name] for name in (*self.spec.metrics, *scores)}
        return {**ordered, "chosen_thresh": threshold}

    def reference_points(
        self, train: list[dict], rows: list[dict], split: str
    ) -> dict[str, dict[str, float] | None]:
        """``chance``: never answering. Of generated data also ``ceiling``: the answers before noise."""
        silent = [Answer("", 1.0, []) for _ in rows]
        points = {"chance": self.score(silent, rows), "ceiling": None, "bag_of_words": None}
        if "clean_answer" in rows[0]:
            perfect = [
                Answer(row["clean_answer"], -1.0 if row["clean_answer"] else 1.0, [])
                for row in rows
            ]
            points["ceiling"] = self.score(perfect, rows)
        return points

    def write_predictions(
        self, folder: Path, answers: list[Answer], rows: list[dict], threshold: float | None
    ) -> None:
        """Files that the official scripts read: ``predictions.json``; for v2 with "" above the threshold, beside
        ``null_odds.json`` and ``answers.json``, the texts before the threshold, which reproduce ``best_*``."""
        folder.mkdir(parents=True, exist_ok=True)
        threshold = (threshold or 0.0) if self.spec.unanswerable else np.inf
        found = {row["id"]: answer for row, answer in zip(rows, answers, strict=True)}
        files = {
            "predictions": {i: "" if a.null_odds > threshold else a.text for i, a in found.items()}
        }
        files["nbest"] = {
            i: [{"text": t, "score": s} for t, s in a.n_best] for i, a in found.items()
        }
        if self.spec.unanswerable:
            files["null_odds"] = {i: a.null_odds for i, a in found.items()}
            files["answers"] = {i: a.text for i, a in found.items()}
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False) + "\n")

    def _scores(self, answers: list[Answer], rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        """Exact match and F1 of the answer texts, before any threshold, each (n,)."""
        version = self.squad_version
        golds = [references_of(row["answers"]["text"], version=version) for row in rows]
        exact = [exact_match(a.text, gold) for a, gold in zip(answers, golds, strict=True)]
        f1 = [
            token_f1(a.text, gold, version=version) for a, gold in zip(answers, golds, strict=True)
        ]
        return np.array(exact), np.array(f1)

    def _facts(
        self, answers: list[Answer], rows: list[dict]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """null_odds, has_answer and empty of :func:`best_threshold`."""
        return (
            np.array([a.null_odds for a in answers]),
            np.array([bool(row["answers"]["text"]) for row in rows]),
            np.array([not a.text for a in answers]),
        )


def best_spans(
    logits: np.ndarray, places: np.ndarray, context: str, longest: int
) -> list[tuple[float, str]]:
    """The N_BEST spans of one window, exactly: logits (n, 2 or 3), places (n, 2) offsets, -1 outside of the passage."""
    inside = np.flatnonzero(places[:, 0] >= 0)
    if not len(inside):
        return []
    start, end = logits[inside, 0], logits[inside, 1]
    count, width = len(inside), min(longest, len(inside))
    scores = np.full((width, count), -np.inf)  # [k, i]: the span of k + 1 tokens from i
    for k in range(width):
        scores[k, : count - k] = start[: count - k] + end[k:]
    flat = scores.ravel()
    top = np.argpartition(-flat, min(N_BEST, flat.size) - 1)[:N_BEST]
    found = []
    for index in top[np.argsort(-flat[top], kind="stable")]:
        k, i = divmod(int(index), count)
        if np.isfinite(flat[index]):
            found.append(
                (float(flat[index]), context[places[inside[i], 0] : places[inside[i + k], 1]])
            )
    return found


def _answer(found: list[tuple[float, str]], null: float, *, article: bool) -> Answer:
    """Merge the windows of one question: the same text counts once, with its best score."""
    best: dict[str, float] = {}
    for score, text in sorted(found, key=lambda pair: -pair[0]):
        best.setdefault(text, score)
    n_best = list(best.items())[:N_BEST]
    if not n_best:
        return Answer("", float(null) if article else 0.0, [])
    text, score = n_best[0]
    return Answer(text, float(null) if article else float(null) - score, n_best)


def _label(places: np.ndarray, answers: dict) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0) where there is none or the window does not hold it whole."""
    if not answers["text"]:
        return 0, 0
    low = answers["answer_start"][0]
    high = low + len(answers["text"][0])
    inside = np.flatnonzero(places[:, 0] >= 0)
    if not len(inside) or places[inside[0], 0] > low or places[inside[-1], 1] < high:
        return 0, 0
    covering = inside[(places[inside, 1] > low) & (places[inside, 0] < high)]
    return (int(covering[0]), int(covering[-1])) if len(covering) else (0, 0)


def _cut(questions: list[str], tokenizer, longest: int) -> list[str]:
    """Questions of at most ``longest`` tokens, cut at a token's end."""
    tokens = tokenizer(
        questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    return [
        q if len(places) <= longest else q[: places[longest - 1][1]]
        for q, places in zip(questions, tokens, strict=True)
    ]
