"""SQuAD-like: passages of several events with questions, each about one event of its passage."""

import random
from dataclasses import replace
from typing import Any

from ...spec import DataSpec, TaskSpec
from .language import PLACES, TIMES, VERBS, Frame, frame, paraphrase
from .paraphrase import ask
from .sizes import NOISE, sizes

EVENTS = (4, 6)  # sentences of a passage, at least and at most
QUESTIONS = 4  # for each passage
PASSAGES = 5  # for each article


def rows(task: TaskSpec, data: DataSpec, split: str, *, unanswerable: bool) -> list[dict[str, Any]]:
    """Rows of a split: whole articles, the last one cut; titles differ between splits.

    Args:
        task: the task; its name enters the seed.
        data: sizes and seed.
        split: split to generate.
        unanswerable: whether a third of the questions has no answer.

    Raises:
        ValueError: the split is not generated.
    """
    rng = random.Random(f"{task.name} {data.seed}")
    for name, size in sizes(task, data).items():
        found: list[dict[str, Any]] = []
        while len(found) < size:
            title = f"{name} article {len(found) // (PASSAGES * QUESTIONS)}"
            found += article(rng, title, NOISE, unanswerable=unanswerable)
        if name == split:
            return found[:size]
    raise ValueError(f"split={split}: is not generated")


def article(
    rng: random.Random, title: str, noise: float, *, unanswerable: bool
) -> list[dict[str, Any]]:
    """The rows of one article, with ids that are unique within it.

    Args:
        rng: source of randomness.
        title: title of the article.
        noise: share of the questions with a wrong answer, another phrase of the passage; their
            ``clean_answer`` is the true one, "" for a question without an answer.
        unanswerable: whether a third of the questions has no answer.
    """
    found = []
    for passage in range(PASSAGES):
        events, context = _passage(rng)
        for question in range(QUESTIONS):
            row = _question(rng, events, unanswerable and rng.random() < 1 / 3)
            row |= {"id": f"{title}-{passage}-{question}", "title": title, "context": context}
            row["answers"] = _recorded(rng, row, context, noise)
            found.append(row)
    return found


def _passage(rng: random.Random) -> tuple[list[Frame], str]:
    """Events without a common participant, place or time: each question has one answer."""
    events: list[Frame] = []
    wanted = rng.randint(*EVENTS)
    while len(events) < wanted:
        event = frame(rng, adjective=0.4, place=1.0, time=1.0)
        parts = {event.subject, event.object, event.place, event.time}
        if not any(parts & {e.subject, e.object, e.place, e.time} for e in events):
            events.append(event)
    return events, " ".join(event.text(rng) for event in events)


def _question(rng: random.Random, events: list[Frame], without: bool) -> dict[str, Any]:
    event = rng.choice(events)
    part = rng.choice(("subject", "object", "place", "time"))
    answer = "" if without else _phrase(event, part)
    asked = paraphrase(replace(event, place="", time=""), rng)
    if without:  # about an event that did not happen: swapped roles, or the opposite
        opposite = VERBS[asked.verb][3]
        asked = (
            replace(asked, verb=opposite) if opposite and rng.random() < 0.5 else asked.swapped()
        )
    if part in ("subject", "object"):
        question = ask(replace(asked, subject_adjective=""), part, rng)
    else:
        word = {"place": "Where", "time": "When"}[part]
        question = f"{word} did the {asked.subject} {asked.verb} the {asked.object}?"
    return {"question": question, "clean_answer": answer}


def _phrase(event: Frame, part: str) -> str:
    """How the passage refers to a part, without the article."""
    if part in ("place", "time"):
        return getattr(event, part)
    adjective = getattr(event, f"{part}_adjective")
    return f"{adjective} {getattr(event, part)}".strip()


def _recorded(rng: random.Random, row: dict, context: str, noise: float) -> dict[str, Any]:
    """The answer as a human wrote it down: nearly always the true one."""
    text = row["clean_answer"]
    if rng.random() < noise:
        text = rng.choice([p for p in (*PLACES, *TIMES) if p != text and _find(context, p) >= 0])
    start = _find(context, text)
    # the passage may write the phrase with a capital at the start of a sentence
    return (
        {"text": [context[start : start + len(text)]], "answer_start": [start]}
        if text
        else {"text": [], "answer_start": []}
    )


def _find(context: str, phrase: str) -> int:
    return context.lower().find(phrase.lower())
