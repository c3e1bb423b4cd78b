"""The official SQuAD JSON, v1.1 and v2.0: articles -> paragraphs -> questions."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import counted
from ..files import parse_json
from . import DataError, Rows
from .files import check_characters, read_utf8, shown

T = TypeVar("T")


def read(path: Path, name: str, *, unanswerable: bool, skip_bad: bool) -> Rows:
    """Rows as the hub has them.

    Args:
        path: path of the file.
        name: name of the task, for messages.
        unanswerable: whether a question may have no answer.
        skip_bad: skip malformed questions and list them, instead of stopping.

    Raises:
        DataError: names the file, the article, the question and what is wrong with it.
    """
    skipped: list[str] = []
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for title, context, question in _questions(path):
        identity = question.get("id") if isinstance(question, dict) else None
        try:
            row = _row(title, context, question)
            _check_place(row, name, seen, unanswerable=unanswerable)
        except ValueError as error:
            where = f"article {shown(title)} question {shown(identity)}"
            if not skip_bad:
                hint = "data.skip_bad=true leaves such questions out"
                raise DataError(f"{path} {where}: {error} ({hint})") from None
            skipped.append(f"{path.name} {where}: {error}")
            continue
        rows.append(row)
    return Rows(rows, f"local {path.name}", skipped)


def check_rows(rows: Sequence[dict[str, Any]], name: str, *, unanswerable: bool) -> None:
    """Check rows that a library has read; unlike in a file, a text may be blank.

    Args:
        rows: the rows.
        name: name of the task, for messages.
        unanswerable: whether a question may have no answer.

    Raises:
        ValueError: names the row, from 0, and what is wrong with it.
    """
    seen: set[str] = set()
    for number, row in enumerate(rows):
        try:
            _check_texts(row)
            pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            for text, start in pairs:
                _answer({"text": text, "answer_start": start}, row["context"])
            _check_place(row, name, seen, unanswerable=unanswerable)
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None


def by_article(found: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Split rows so that no article is in both parts.

    Args:
        found: the rows.
        share: share of the articles that go to the second part; each part gets at least one.
        seed: seed of the choice.

    Raises:
        DataError: there is only one article.
    """
    titles = sorted({row["title"] for row in found.rows})
    if len(titles) < 2:
        raise DataError(
            f"{found.source}: has one article; task.args.held_out={share} needs two or more"
        )
    random.Random(seed).shuffle(titles)
    kept = set(titles[min(len(titles) - 1, max(1, round(len(titles) * share))) :])
    first = [row for row in found.rows if row["title"] in kept]
    second = [row for row in found.rows if row["title"] not in kept]
    other = Rows(second, f"{found.source}, held-out articles")
    return Rows(first, found.source, found.skipped), other


def _questions(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield (title, context, question).

    Raises:
        DataError: the file is not JSON, or an article or a paragraph lacks a field.
    """
    try:
        found = parse_json(read_utf8(path))
    except ValueError as error:
        raise DataError(f"{path} {error}; must be SQuAD's JSON") from None
    if not isinstance(found, dict) or "data" not in found:
        raise DataError(f"{path}: has no list `data`; must be SQuAD's JSON")
    if not isinstance(found["data"], list):
        raise DataError(f"{path}: `data` is not a list; must be SQuAD's JSON")
    for number, article in enumerate(found["data"]):
        try:
            title = _field(article, "title", str, "")
            if not title.strip():
                raise ValueError(f"title is {shown(title)}; must be text")
            for index, paragraph in enumerate(_field(article, "paragraphs", list, "")):
                inside = f" in paragraph {index}"
                context = _field(paragraph, "context", str, inside)
                for question in _field(paragraph, "qas", list, inside):
                    yield title, context, question
        except ValueError as error:
            raise DataError(f"{path} article {number}: {error}") from None


def _field(found: Any, name: str, kind: type[T], place: str) -> T:
    """A field of an article or a paragraph.

    Raises:
        ValueError: it is missing or of the wrong type; ignoring this would drop questions.
    """
    if not isinstance(found, dict):
        raise ValueError(f"is {shown(found)}{place}; must be an object with {name}")
    if name not in found:
        needed = "must hold title, paragraphs, context, qas"
        raise ValueError(f"lacks {name!r}{place}; {needed}")
    if not isinstance(found[name], kind):
        allowed = "a list" if kind is list else "a text"
        raise ValueError(f"{name} is {shown(found[name])}{place}; must be {allowed}")
    return found[name]


def _row(title: str, context: str, question: Any) -> dict[str, Any]:
    """The row of a question.

    Raises:
        ValueError: what is wrong with the question.
    """
    if not isinstance(question, dict):
        raise ValueError("is not an object; must hold id, question, answers")
    texts: dict[str, Any] = {"id": question.get("id"), "title": title}
    texts |= {"question": question.get("question"), "context": context}
    _check_texts(texts)
    if blank := [name for name, text in texts.items() if not text.strip()]:
        raise ValueError(f"{blank[0]} is {shown(texts[blank[0]])}; must be text")
    answers = question.get("answers")
    if not isinstance(answers, list):
        raise ValueError(f"answers is {shown(answers)}; must be a list")
    impossible = question.get("is_impossible", False)
    if not isinstance(impossible, bool) or impossible == bool(answers):
        given = counted(len(answers), "answer")
        raise ValueError(f"is_impossible is {shown(impossible)} with {given}; must agree")
    found = [_answer(answer, context) for answer in answers]
    starts = [start for _, start in found]
    return {**texts, "answers": {"text": [text for text, _ in found], "answer_start": starts}}


def _check_texts(row: dict[str, Any]) -> None:
    for name in ("id", "title", "question", "context"):
        if not isinstance(row[name], str):
            raise ValueError(f"{name} is {shown(row[name])}; must be text")
        check_characters(name, row[name])


def _check_place(row: dict[str, Any], name: str, seen: set[str], *, unanswerable: bool) -> None:
    """Check a row against its task and the ids of earlier rows, to which it adds its own."""
    if not (row["answers"]["text"] or unanswerable):
        raise ValueError(f"has no answer; every question of {name} must have one")
    if row["id"] in seen:
        raise ValueError("an earlier question has this id; must be unique")
    seen.add(row["id"])


def _answer(answer: Any, context: str) -> tuple[str, int]:
    """Text and start of an answer.

    Raises:
        ValueError: it lacks a field, or the passage has a different text there.
    """
    named = answer if isinstance(answer, dict) else {}
    text, start = named.get("text"), named.get("answer_start")
    if not isinstance(text, str) or type(start) is not int:
        raise ValueError(f"answer is {shown(answer)}; must hold text and answer_start")
    if text and not text.strip():
        raise ValueError(f"answer is {shown(text)}; must be text")
    found = context[start : start + len(text)] if start >= 0 else None
    if not text or found != text:
        raise ValueError(
            f"answer {shown(text)} is not at its offset {start}; the passage has {shown(found)}"
        )
    return text, start
