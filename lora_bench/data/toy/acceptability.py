"""CoLA-like: a sentence of a small grammar, or one with an error that no single word reveals."""

import random

from .language import ADJECTIVES, PEOPLE, PLACES, VERBS, plural

ATTRACTORS = ("near", "behind", "next to", "in front of")
REFLEXIVE = {False: "herself", True: "themselves"}
MENTAL = ("says", "thinks", "knows", "believes")


def sentence(rng: random.Random) -> tuple[tuple[str], int]:
    """((sentence,), 1 acceptable or 0 not)."""
    good = rng.random() < 0.6
    text = rng.choice(KINDS)(rng, good)
    return (text[0].upper() + text[1:],), int(good)


def _noun(rng: random.Random, many: bool) -> str:
    noun = rng.choice(sorted(PEOPLE))
    adjective = rng.choice(sorted(ADJECTIVES)) + " " if rng.random() < 0.4 else ""
    return adjective + (plural(noun) if many else noun)


def _tail(rng: random.Random) -> str:
    return " " + rng.choice(PLACES) if rng.random() < 0.5 else ""


def _agreement(rng: random.Random, good: bool) -> str:
    """The verb agrees with the head noun, not its neighbor (the doctors near the nurse help)."""
    many, near = rng.random() < 0.5, rng.random() < 0.5
    verb = rng.choice(sorted(VERBS))
    form = verb if many == good else VERBS[verb][0]
    beside = f" {rng.choice(ATTRACTORS)} the {_noun(rng, near)}" if rng.random() < 0.7 else ""
    return (
        f"the {_noun(rng, many)}{beside} {form} the {_noun(rng, rng.random() < 0.5)}{_tail(rng)}."
    )


def _reflexive(rng: random.Random, good: bool) -> str:
    """A reflexive agrees with its own subject: the nurse near the pilots praised herself."""
    many, near = rng.random() < 0.5, rng.random() < 0.5
    beside = f" {rng.choice(ATTRACTORS)} the {_noun(rng, near)}" if rng.random() < 0.6 else ""
    past = VERBS[rng.choice(sorted(VERBS))][1]
    return f"the {_noun(rng, many)}{beside} {past} {REFLEXIVE[many == good]}{_tail(rng)}."


def _auxiliary(rng: random.Random, good: bool) -> str:
    """did + base form, has + past participle."""
    verb = rng.choice(sorted(VERBS))
    did = rng.random() < 0.5
    form = verb if did == good else VERBS[verb][1]
    negation = " not" if rng.random() < 0.5 else ""
    subject, auxiliary = _noun(rng, False), "did" if did else "has"
    return f"the {subject} {auxiliary}{negation} {form} the {_noun(rng, True)}{_tail(rng)}."


def _question(rng: random.Random, good: bool) -> str:
    """A fronted object leaves its position empty: who did the nurse help yesterday?"""
    verb = rng.choice(sorted(VERBS))
    gap = "" if good else f" the {_noun(rng, rng.random() < 0.5)}"
    asked = rng.choice(("who", f"which {rng.choice(sorted(PEOPLE))}"))
    return f"{asked} did the {_noun(rng, rng.random() < 0.5)} {verb}{gap}{_tail(rng)}?"


def _determiner(rng: random.Random, good: bool) -> str:
    """Number of determiner and noun: this nurse, these nurses."""
    many = rng.random() < 0.5
    determiner = rng.choice(
        ("these", "those", "many", "several") if many else ("this", "that", "every", "each")
    )
    subject, past = _noun(rng, many == good), VERBS[rng.choice(sorted(VERBS))][1]
    return f"{determiner} {subject} {past} the {_noun(rng, rng.random() < 0.5)}{_tail(rng)}."


def _clause(rng: random.Random, good: bool) -> str:
    """Word order in an embedded clause: not "thinks that helped the nurses the pilot"."""
    first, second = _noun(rng, rng.random() < 0.5), _noun(rng, rng.random() < 0.5)
    past = VERBS[rng.choice(sorted(VERBS))][1]
    inner = f"the {first} {past} the {second}"
    if not good:
        inner = rng.choice((f"{past} the {first} the {second}", f"the {first} the {second} {past}"))
    return f"the {_noun(rng, False)} {rng.choice(MENTAL)} that {inner}{_tail(rng)}."


def _order(rng: random.Random, good: bool) -> str:
    """Two neighboring words swapped: the nurse helped pilot the."""
    past = VERBS[rng.choice(sorted(VERBS))][1]
    words = (
        f"the {_noun(rng, rng.random() < 0.5)} {past} the {_noun(rng, True)}{_tail(rng)}".split()
    )
    if not good:
        at = rng.randrange(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words) + "."


KINDS = (_agreement, _reflexive, _auxiliary, _question, _determiner, _clause, _order, _order)
