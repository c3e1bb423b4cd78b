"""From start and end logits of windows to one answer for each question."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

N_BEST = 5  # candidates that are kept for each question


@dataclass
class Answer:
    """The best answer to one question.

    Attributes:
        text: text of the answer, cut from the passage; "" if no span is possible.
        null_odds: odds that the question is unanswerable, as a difference of logits.
        n_best: (text, start logit + end logit) of the best candidates, best first.
    """

    text: str
    null_odds: float
    n_best: list[tuple[str, float]]


def best_spans(
    logits: np.ndarray, offsets: np.ndarray, context: str, longest: int
) -> list[tuple[float, str]]:
    """The N_BEST spans of one window, by exhaustive search.

    Args:
        logits: (n, 2 or 3), start and end logit of each token.
        offsets: (n, 2), characters of each token in the passage, -1 for other tokens.
        context: the passage.
        longest: maximum number of tokens of a span.

    Returns:
        (start logit + end logit, text) of each span, best first.
    """
    inside = np.flatnonzero(offsets[:, 0] >= 0)
    if not len(inside):
        return []
    start, end = logits[inside, 0], logits[inside, 1]  # (count,)
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
            text = context[offsets[inside[i], 0] : offsets[inside[i + k], 1]]
            found.append((float(flat[index]), text))
    return found


def merge(found: list[tuple[float, str]], null: float, *, absolute: bool) -> Answer:
    """The answer from the spans of all windows of a question; a text keeps its best score.

    Args:
        found: (score, text) of each span.
        null: logit of "no answer".
        absolute: whether ``null`` is already a log-odds; else the best span's score is subtracted.
    """
    best: dict[str, float] = {}
    for score, text in sorted(found, key=lambda pair: -pair[0]):
        best.setdefault(text, score)
    n_best = list(best.items())[:N_BEST]
    if not n_best:
        return Answer("", float(null) if absolute else 0.0, [])
    text, score = n_best[0]
    return Answer(text, float(null) if absolute else float(null) - score, n_best)


def write_files(folder: Path, answers: dict[str, Answer], threshold: float | None) -> None:
    """Write the files that SQuAD's official scripts read.

    ``predictions.json`` holds the answers and ``nbest.json`` the candidates. With a threshold an
    answer is "" where its null odds are above it; ``answers.json``, the texts before the
    threshold, and ``null_odds.json`` reproduce the scripts' ``best_*``.

    Args:
        folder: folder to write to.
        answers: answers by the question's id.
        threshold: threshold for no answer; None: every question is answered (v1.1).
    """
    limit = np.inf if threshold is None else threshold
    files: dict[str, Any] = {
        "predictions": {i: "" if a.null_odds > limit else a.text for i, a in answers.items()},
        "nbest": {i: [{"text": t, "score": s} for t, s in a.n_best] for i, a in answers.items()},
    }
    if threshold is not None:
        files["null_odds"] = {i: a.null_odds for i, a in answers.items()}
        files["answers"] = {i: a.text for i, a in answers.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
