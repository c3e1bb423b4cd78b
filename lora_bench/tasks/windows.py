"""Passages as overlapping windows (the doc_stride scheme of google-research/bert, run_squad.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .encoding import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(
    rows: list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    stride: int,
    max_question: int,
) -> Encoded:
    """Windows of question and passage, labeled with the first answer's first and last token.

    A window that does not hold the whole answer is labeled (0, 0).

    Args:
        rows: rows with ``question``, ``context`` and ``answers``.
        tokenizer: tokenizer of the encoder.
        max_length: maximum number of tokens of a window, including special tokens.
        stride: tokens that neighboring windows of one passage share.
        max_question: maximum number of tokens of a question; longer ones are cut.
    """
    tokens = tokenizer(
        cut([row["question"].strip() for row in rows], tokenizer, max_question),
        [row["context"] for row in rows],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    row_of = tokens["overflow_to_sample_mapping"]
    offsets, labels = [], []
    for window, row in enumerate(row_of):
        first = window == 0 or row_of[window - 1] != row
        last = window == len(row_of) - 1 or row_of[window + 1] != row
        inside = np.array([part == 1 for part in tokens.sequence_ids(window)])  # (n,)
        spans = np.array(tokens["offset_mapping"][window])  # (n, 2)
        spans = np.where(inside[:, None], spans, -1).astype(np.int32)
        offsets.append(spans)
        labels.append(label_of(spans, rows[row]["answers"], first=first, last=last))
    encoded = Encoded.from_lists(
        tokens["input_ids"], tokens.get("token_type_ids"), np.array(labels, dtype=np.int64)
    )
    encoded.row, encoded.offsets = np.array(row_of, dtype=np.int64), np.concatenate(offsets)
    return encoded


def label_of(
    offsets: np.ndarray, answers: dict[str, list], *, first: bool, last: bool
) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0) if a window does not hold all of it.

    Args:
        offsets: (n, 2), characters of each token in the passage, -1 for other tokens.
        answers: ``text`` and ``answer_start`` of each answer; both empty for an unanswerable
            question.
        first: whether the window is the passage's first one. Characters before its first token,
            such as spaces, have no token in any window.
        last: whether it is the last one; as ``first``.
    """
    if not answers["text"]:
        return 0, 0
    text = answers["text"][0]
    low = answers["answer_start"][0] + len(text) - len(text.lstrip())
    high = low + len(text.strip())
    inside = np.flatnonzero(offsets[:, 0] >= 0)
    if not len(inside):
        return 0, 0
    begins_before = not first and offsets[inside[0], 0] > low
    ends_after = not last and offsets[inside[-1], 1] < high
    if begins_before or ends_after:
        return 0, 0
    covering = inside[(offsets[inside, 1] > low) & (offsets[inside, 0] < high)]
    return (int(covering[0]), int(covering[-1])) if len(covering) else (0, 0)


def cut(questions: list[str], tokenizer: PreTrainedTokenizerBase, longest: int) -> list[str]:
    """Questions of at most ``longest`` tokens, cut between characters."""
    tokens = tokenizer(
        questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return [
        # several tokens may share a character, and each of them ends with it
        question
        if len(offsets) <= longest
        else question[: min(offsets[longest - 1][1], offsets[longest][0])]
        for question, offsets in zip(questions, tokens["offset_mapping"], strict=True)
    ]
