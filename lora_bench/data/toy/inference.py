"""MNLI- and RTE-like: does the premise entail the hypothesis, contradict it, or neither?

Negation, hypernyms, quantifiers and omitted parts occur equally often with every label, so that no
word reveals it.
"""

import random
from dataclasses import replace
from typing import Any

from .language import HYPERNYM, PLACES, VERBS, Frame, frame, other, paraphrase, plural

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2


def three_way(rng: random.Random) -> tuple[tuple[str, str], int]:
    """((premise, hypothesis), label)."""
    return rng.choice((_event, _event, _event, _quantified))(rng)


def two_way(rng: random.Random) -> tuple[tuple[str, str], int]:
    """((text, hypothesis), 0 entailment or 1 not)."""
    wanted = rng.random() < 0.5
    while True:  # three_way draws every label often: this ends after two or three draws
        texts, label = three_way(rng)
        if (label == ENTAILMENT) == wanted:
            return texts, int(not wanted)


def _event(rng: random.Random) -> tuple[tuple[str, str], int]:
    """One event in two sentences."""
    premise = replace(frame(rng, place=0.8, time=0.6), negated=rng.random() < 0.4)
    label = rng.choice((ENTAILMENT, NEUTRAL, CONTRADICTION))
    dropped = rng.sample(
        ("subject_adjective", "object_adjective", "place", "time"), rng.choice((0, 1, 2))
    )
    nothing: dict[str, Any] = dict.fromkeys(dropped, "")
    hypothesis = replace(premise, **nothing)
    if label == NEUTRAL:
        hypothesis = rng.choice((_roles, _roles, _stranger, _elsewhere))(hypothesis, rng)
    elif label == CONTRADICTION:
        hypothesis = _denied(hypothesis, rng)
    premise, hypothesis = _broader(premise, hypothesis, label, rng)
    return (premise.text(rng), paraphrase(hypothesis, rng).text(rng)), label


def _roles(event: Frame, rng: random.Random) -> Frame:
    return event.swapped()


def _stranger(event: Frame, rng: random.Random) -> Frame:
    """Somebody else did it."""
    return replace(event, subject=other(event.subject, set(HYPERNYM) - {event.object}, rng))


def _elsewhere(event: Frame, rng: random.Random) -> Frame:
    """It may have happened there too."""
    return replace(event, place=other(event.place, PLACES, rng))


def _denied(event: Frame, rng: random.Random) -> Frame:
    opposite = VERBS[event.verb][3]
    if opposite and not event.negated and rng.random() < 0.4:
        return replace(event, verb=opposite)
    return replace(event, negated=not event.negated)


def _broader(
    premise: Frame, hypothesis: Frame, label: int, rng: random.Random
) -> tuple[Frame, Frame]:
    """``person`` for ``nurse`` on one or both sides; never only in an entailment's premise."""
    where = rng.choice(
        ("neither", "neither", "hypothesis", "both") + (("premise",) if label != ENTAILMENT else ())
    )
    if where in ("premise", "both"):
        premise = replace(premise, subject=HYPERNYM[premise.subject])
    if where in ("hypothesis", "both"):
        hypothesis = replace(hypothesis, subject=HYPERNYM[hypothesis.subject])
    return premise, hypothesis


# (premise quantifier, hypothesis quantifier, label) over one predicate; each quantifier occurs with
# each label, where logic allows it.
QUANTIFIERS = (
    ("all", "all", ENTAILMENT), ("no", "no", ENTAILMENT), ("all", "most", ENTAILMENT),
    ("most", "some", ENTAILMENT), ("no", "not all", ENTAILMENT), ("some", "some", ENTAILMENT),
    ("some", "all", NEUTRAL), ("most", "all", NEUTRAL), ("some", "most", NEUTRAL),
    ("not all", "no", NEUTRAL), ("most", "not all", NEUTRAL), ("not all", "some", NEUTRAL),
    ("all", "no", CONTRADICTION), ("no", "some", CONTRADICTION), ("all", "not all", CONTRADICTION),
    ("not all", "all", CONTRADICTION), ("no", "most", CONTRADICTION), ("some", "no", CONTRADICTION),
)  # fmt: skip


def _quantified(rng: random.Random) -> tuple[tuple[str, str], int]:
    """Two quantifiers over one predicate; the label is their logic."""
    first, second, label = rng.choice(QUANTIFIERS)
    subject, object_ = rng.sample(sorted(HYPERNYM), 2)
    verb = rng.choice(sorted(VERBS))
    place = " " + rng.choice(PLACES) if rng.random() < 0.6 else ""

    def say(quantifier: str, verb: str) -> str:
        core = f"{quantifier} {plural(subject)} {VERBS[verb][1]} the {object_}{place}."
        return core[0].upper() + core[1:]

    return (say(first, verb), say(second, VERBS[verb][2] or verb)), label
