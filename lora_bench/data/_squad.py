"""The official SQuAD JSON, v1.1 and v2.0: articles -> paragraphs -> questions."""

import json
from pathlib import Path

from ..spec import TaskSpec
from . import DataError, Rows


def read(path: Path, text: str, task: TaskSpec, *, skip_bad: bool) -> Rows:
    """Rows as the hub has them. Raises: DataError: names file, article, question and what is wrong with it."""
    skipped: list[str] = []
    rows: dict[str, dict] = {}
    for title, context, question in _questions(path, text):
        identity = question.get("id") if isinstance(question, dict) else None
        try:
            row = _row(title, context, question, task)
            if row["id"] in rows:
                raise ValueError("this id stands in the file before; must be unique")
        except ValueError as error:
            where = f"article {title!r} question {identity!r}"
            if not skip_bad:
                raise DataError(
                    f"{path} {where}: {error} (data.skip_bad=true leaves such questions out)"
                ) from None
            skipped.append(f"{path.name} {where}: {error}")
            continue
        rows[row["id"]] = row
    return Rows(list(rows.values()), f"local {path.name}", skipped)


def _questions(path: Path, text: str):
    """Yield (title, context, question); whatever is no article or paragraph stops with its place in the file."""
    try:
        articles = json.loads(text)["data"]
    except json.JSONDecodeError as error:
        message = (
            f"{path} line {error.lineno} column {error.colno}: {error.msg}; must be SQuAD's JSON"
        )
        raise DataError(message) from None
    except (TypeError, KeyError):
        raise DataError(f"{path}: has no list `data`; must be SQuAD's JSON") from None
    if not isinstance(articles, list):
        raise DataError(f"{path}: `data` is no list; must be SQuAD's JSON")
    for number, article in enumerate(articles):
        try:
            title, paragraphs = article["title"], list(article["paragraphs"])
            pairs = [(p["context"], list(p["qas"])) for p in paragraphs]
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{path} article {number}: lacks {error}; must hold title, paragraphs, context, qas"
            ) from None
        for context, questions in pairs:
            yield from ((title, context, question) for question in questions)


def _row(title: str, context: str, question: dict, task: TaskSpec) -> dict:
    """Raises: ValueError: what is wrong with the question."""
    if not isinstance(question, dict):
        raise ValueError("is no object; must hold id, question, answers")
    for name in ("id", "question"):
        if not isinstance(question.get(name), str) or not question[name].strip():
            raise ValueError(f"{name} is {question.get(name)!r}; must be a text")
    if not isinstance(context, str) or not context.strip():
        raise ValueError(f"context is {context!r}; must be a text")
    answers = question.get("answers")
    if not isinstance(answers, list):
        raise ValueError(f"answers is {answers!r}; must be a list")
    impossible = question.get("is_impossible", False)
    if impossible not in (True, False) or impossible == bool(answers):
        raise ValueError(f"is_impossible is {impossible!r} with {len(answers)} answers; must agree")
    if impossible and not task.unanswerable:
        raise ValueError(f"has no answer; every question of {task.name} must have one")
    texts, starts = [], []
    for answer in answers:
        try:
            said, start = answer["text"], answer["answer_start"]
            found = context[start : start + len(said)] if start >= 0 else None
        except (TypeError, KeyError):
            raise ValueError(f"answer is {answer!r}; must hold text and answer_start") from None
        if not said or found != said:
            raise ValueError(
                f"answer {said!r} is not at its offset {start}; there stands {found!r}"
            )
        texts.append(said)
        starts.append(start)
    return {
        "id": question["id"],
        "title": title,
        "question": question["question"],
        "context": context,
        "answers": {"text": texts, "answer_start": starts},
    }
