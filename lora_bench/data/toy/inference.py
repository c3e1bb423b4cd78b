"""MNLI-like: does the premise entail the hypothesis, contradict it, or leave it open?"""

import random
from dataclasses import replace

from .language import ADJECTIVES, HYPERNYM, PLACES, TIMES, VERBS, frame, other, paraphrase, plural

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2


def three_way(rng: random.Random) -> tuple[tuple[str, str], int]:
    """((premise, hypothesis), label)."""
    return rng.choice((_event, _event, _quantified))(rng)


def _event(rng: random.Random) -> tuple[tuple[str, str], int]:
    """Drop, add or change a part of an event."""
    premise = frame(rng, place=0.8, time=0.6)
    label = rng.choice((ENTAILMENT, NEUTRAL, CONTRADICTION))
    hypothesis = premise
    if label == ENTAILMENT:
        drop = rng.sample(("subject_adjective", "object_adjective", "place", "time"), rng.choice((1, 2)))
        hypothesis = replace(hypothesis, **dict.fromkeys(drop, ""))
        if rng.random() < 0.4:
            hypothesis = replace(hypothesis, subject=HYPERNYM[hypothesis.subject])
    elif label == NEUTRAL:
        premise, hypothesis = rng.choice((_unstated_place, _unstated_adjective, _narrower, _roles))(premise, rng)
    else:
        hypothesis = rng.choice((_negated, _opposite))(premise, rng)
    if rng.random() < 0.5:
        premise, hypothesis = _both_negated(premise, hypothesis, label, rng)
    return (premise.text(rng), paraphrase(hypothesis, rng).text(rng)), label


def _both_negated(premise, hypothesis, label, rng):
    """For contradictions by negation, negate the other side, so that `not` alone tells nothing."""
    if label == CONTRADICTION and premise.negated != hypothesis.negated:
        return replace(premise, negated=hypothesis.negated), replace(hypothesis, negated=premise.negated)
    return premise, hypothesis


def _unstated_place(premise, rng):
    return replace(premise, place=""), replace(premise, place=premise.place or rng.choice(PLACES), time="")


def _unstated_adjective(premise, rng):
    return replace(premise, object_adjective=""), replace(premise, object_adjective=rng.choice(sorted(ADJECTIVES)))


def _narrower(premise, rng):
    """A person helped ... leaves open that it was the nurse."""
    return replace(premise, subject=HYPERNYM[premise.subject]), premise


def _roles(premise, rng):
    return premise, replace(premise.swapped(), time=other(premise.time, TIMES, rng))


def _negated(premise, rng):
    return replace(premise, negated=True, time="")


def _opposite(premise, rng):
    opposite = VERBS[premise.verb][3]
    return replace(premise, verb=opposite, place="") if opposite else _negated(premise, rng)


# (premise quantifier, hypothesis quantifier, label) over one predicate
QUANTIFIERS = (
    ("all", "some", ENTAILMENT), ("all", "most", ENTAILMENT), ("most", "some", ENTAILMENT),
    ("no", "not all", ENTAILMENT), ("no", "few", ENTAILMENT), ("two", "some", ENTAILMENT),
    ("some", "all", NEUTRAL), ("some", "most", NEUTRAL), ("most", "all", NEUTRAL), ("not all", "no", NEUTRAL),
    ("some", "few", NEUTRAL), ("not all", "some", NEUTRAL),
    ("all", "no", CONTRADICTION), ("no", "some", CONTRADICTION), ("all", "not all", CONTRADICTION),
    ("most", "no", CONTRADICTION), ("no", "all", CONTRADICTION), ("two", "no", CONTRADICTION),
)  # fmt: skip


def _quantified(rng: random.Random) -> tuple[tuple[str, str], int]:
    """Two quantifiers over one predicate; the label is their logic."""
    first, second, label = rng.choice(QUANTIFIERS)
    subject, object_ = rng.sample(sorted(HYPERNYM), 2)
    past = VERBS[rng.choice(sorted(VERBS))][1]
    place = " " + rng.choice(PLACES) if rng.random() < 0.6 else ""

    def say(quantifier: str) -> str:
        core = f"{quantifier} {plural(subject)} {past} the {object_}{place}."
        return core[0].upper() + core[1:]

    return (say(first), say(second)), label
