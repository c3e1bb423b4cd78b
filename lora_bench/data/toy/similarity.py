"""STS-B-like: how similar two sentences are, 0 to 5, given how their events differ."""

import random
from dataclasses import replace

from .language import ADJECTIVES, HYPERNYM, PLACES, TIMES, VERBS, Frame, frame, other, paraphrase


def pair(rng: random.Random) -> tuple[tuple[str, str], float]:
    """((sentence, sentence), similarity from 0 to 5)."""
    first = frame(rng)
    if rng.random() < 0.15:
        second, value = frame(rng), 0.0
    else:
        second, value = _changed(first, rng)
        second = paraphrase(second, rng)
    return (first.text(rng), second.text(rng)), value


def _changed(event: Frame, rng: random.Random) -> tuple[Frame, float]:
    """Up to three changes, each with its cost in points."""
    value = 5.0
    changes = rng.sample(sorted(CHANGES), rng.choice((0, 1, 1, 2, 2, 3)))
    for name in changes:
        changed, cost = CHANGES[name](event, rng)
        if changed != event:
            event, value = changed, value - cost
    return event, max(value, 0.5)


def _opposite_verb(event: Frame, rng: random.Random) -> tuple[Frame, float]:
    opposite = VERBS[event.verb][3]
    return replace(event, verb=opposite or event.verb), 2.0


def _opposite_adjective(event: Frame, rng: random.Random) -> tuple[Frame, float]:
    adjective = event.subject_adjective
    return replace(event, subject_adjective=ADJECTIVES[adjective][1] if adjective else ""), 1.0


CHANGES = {
    "adjective": _opposite_adjective,
    "negation": lambda event, rng: (replace(event, negated=not event.negated), 2.0),
    "object": lambda event, rng: (
        replace(event, object=other(event.object, set(HYPERNYM) - {event.subject}, rng)),
        1.5,
    ),
    "place": lambda event, rng: (replace(event, place=other(event.place, PLACES, rng)), 0.75),
    "roles": lambda event, rng: (event.swapped(), 2.0),
    "subject": lambda event, rng: (
        replace(event, subject=other(event.subject, set(HYPERNYM) - {event.object}, rng)),
        1.5,
    ),
    "time": lambda event, rng: (replace(event, time=other(event.time, TIMES, rng)), 0.5),
    "verb": _opposite_verb,
}
