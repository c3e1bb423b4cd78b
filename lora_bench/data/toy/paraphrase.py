"""MRPC- and QQP-like pairs: same meaning in other words, or other meaning in the same words."""

import random
from dataclasses import replace

from .language import ADJECTIVES, HYPERNYM, PLACES, VERBS, Frame, frame, other, paraphrase


def _changed(event: Frame, rng: random.Random) -> Frame:
    """One change that keeps most words and breaks the meaning."""
    kinds = ["roles", "roles", "object", "place"]
    kinds += ["verb"] if VERBS[event.verb][3] else []
    kinds += ["adjective"] if event.subject_adjective else []
    kind = rng.choice(kinds)
    if kind == "roles":
        return event.swapped()
    if kind == "verb":
        return replace(event, verb=VERBS[event.verb][3])
    if kind == "object":
        return replace(event, object=other(event.object, set(HYPERNYM) - {event.subject}, rng))
    if kind == "adjective":
        return replace(event, subject_adjective=ADJECTIVES[event.subject_adjective][1])
    return replace(event, place=other(event.place, PLACES, rng))


def sentences(rng: random.Random) -> tuple[tuple[str, str], int]:
    """((sentence, sentence), 1 equivalent or 0 not)."""
    same = rng.random() < 0.6
    first = frame(rng, adjective=0.3, place=0.8, time=0)
    second = paraphrase(first if same else _changed(first, rng), rng)
    return (first.text(rng), second.text(rng)), int(same)


def questions(rng: random.Random) -> tuple[tuple[str, str], int]:
    """((question, question), 1 duplicate or 0 not)."""
    same = rng.random() < 0.45
    first = frame(rng, adjective=0.3, place=0.8, time=0)
    second = first if same else _changed(first, rng)
    part = rng.choice(("subject", "object"))
    other_part = (
        part if same or rng.random() < 0.8 else ("object" if part == "subject" else "subject")
    )
    return (ask(first, part, rng), ask(paraphrase(second, rng), other_part, rng)), int(same)


def ask(event: Frame, part: str, rng: random.Random) -> str:
    """A question for the subject or the object of an event, active or passive."""
    past = VERBS[event.verb][1]
    place = f" {event.place}" if event.place else ""
    noun = (
        f"the {event.subject_adjective} {event.subject}"
        if event.subject_adjective
        else f"the {event.subject}"
    )
    if part == "subject":
        return rng.choice(
            (
                f"Who {past} the {event.object}{place}?",
                f"Who was the {event.object} {past} by{place}?",
            ),
        )
    return rng.choice((f"Who did {noun} {event.verb}{place}?", f"Who was {past} by {noun}{place}?"))
