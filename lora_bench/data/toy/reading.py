"""SQuAD-like: passages of several events, and questions about one of them; the others are distractors."""

import random
from dataclasses import replace

from .language import PLACES, TIMES, VERBS, Frame, frame, paraphrase
from .paraphrase import ask

EVENTS = (4, 6)  # sentences of a passage, at least and at most
QUESTIONS = 4  # for each passage
PASSAGES = 5  # for each article


def article(rng: random.Random, title: str, noise: float, *, unanswerable: bool) -> list[dict]:
    """The rows of one article, ids unique within it.

    Args: noise: share of the questions whose recorded answer is another phrase of the passage (or, where there is none,
        that claim to have one); their ``clean_answer`` is the true one, "" for a question without an answer.
    """
    rows = []
    for passage in range(PASSAGES):
        events, context = _passage(rng)
        for question in range(QUESTIONS):
            row = _question(rng, events, context, unanswerable and rng.random() < 1 / 3)
            row |= {"id": f"{title}-{passage}-{question}", "title": title, "context": context}
            row["answers"] = _recorded(rng, row, context, noise)
            rows.append(row)
    return rows


def _passage(rng: random.Random) -> tuple[list[Frame], str]:
    """Events with each participant, place and time at most once, so that a question has one answer, at one place."""
    events: list[Frame] = []
    wanted = rng.randint(*EVENTS)
    while len(events) < wanted:
        event = frame(rng, adjective=0.4, place=1.0, time=1.0)
        parts = {event.subject, event.object, event.place, event.time}
        if not any(parts & {e.subject, e.object, e.place, e.time} for e in events):
            events.append(event)
    return events, " ".join(event.text(rng) for event in events)


def _question(rng: random.Random, events: list[Frame], context: str, without: bool) -> dict:
    event = rng.choice(events)
    part = rng.choice(("subject", "object", "place", "time"))
    answer = "" if without else _phrase(event, part)
    asked = paraphrase(replace(event, place="", time=""), rng)
    if without:  # asks for what did not happen: exchanged roles, or the opposite
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
    """How the passage names a part, without the article."""
    if part in ("place", "time"):
        return getattr(event, part)
    adjective = getattr(event, f"{part}_adjective")
    return f"{adjective} {getattr(event, part)}".strip()


def _recorded(rng: random.Random, row: dict, context: str, noise: float) -> dict:
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
