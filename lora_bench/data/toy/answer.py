"""QNLI-like: does the sentence hold the answer to the question?"""

import random
from dataclasses import replace
from typing import Any

from .language import HYPERNYM, PLACES, TIMES, VERBS, Frame, frame, other, paraphrase
from .paraphrase import ask

ENTAILMENT, NOT_ENTAILMENT = 0, 1


def pair(rng: random.Random) -> tuple[tuple[str, str], int]:
    """((question, sentence), label)."""
    event = frame(rng, place=0.9, time=0.9)
    event = replace(
        event, place=event.place or rng.choice(PLACES), time=event.time or rng.choice(TIMES)
    )
    part = rng.choice(("subject", "object", "place", "time"))
    question = _question(event, part, rng)
    answered = rng.random() < 0.5
    told = event if answered else _unanswered(event, part, rng)
    return (question, paraphrase(told, rng).text(rng)), ENTAILMENT if answered else NOT_ENTAILMENT


def _question(event: Frame, part: str, rng: random.Random) -> str:
    if part in ("subject", "object"):
        return ask(replace(event, place="", subject_adjective=""), part, rng)
    word = {"place": "Where", "time": "When"}[part]
    past = VERBS[event.verb][1]
    return rng.choice(
        (
            f"{word} did the {event.subject} {event.verb} the {event.object}?",
            f"{word} was the {event.object} {past} by the {event.subject}?",
        )
    )


def _unanswered(event: Frame, part: str, rng: random.Random) -> Frame:
    """Nearly the same event, which leaves the question open."""
    kinds = ["roles", "known"] + (["gap", "gap"] if part in ("place", "time") else [])
    kind = rng.choice(kinds)
    if kind == "gap":
        nothing: dict[str, Any] = {part: ""}
        return replace(event, **nothing)
    if kind == "roles":
        return event.swapped()
    known = "object" if part == "subject" else "subject"
    taken = {event.subject, event.object}
    changed: dict[str, Any] = {
        known: other(getattr(event, known), set(HYPERNYM) - taken | {getattr(event, known)}, rng)
    }
    return replace(event, **changed)
