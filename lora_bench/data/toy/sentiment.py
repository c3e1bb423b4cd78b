"""SST-2-like: is a sentence of a review positive?

Words alone mislead: negation, contrast and hearsay reverse them.
"""

import random

GOOD = (
    "brilliant",
    "moving",
    "funny",
    "gripping",
    "charming",
    "clever",
    "warm",
    "fresh",
    "superb",
    "touching",
)
BAD = (
    "dull",
    "clumsy",
    "tedious",
    "shallow",
    "bland",
    "messy",
    "lifeless",
    "stale",
    "awful",
    "pointless",
)
PARTS = (
    "plot",
    "acting",
    "script",
    "ending",
    "music",
    "pacing",
    "dialogue",
    "camera work",
    "humor",
    "cast",
)
HEARSAY = ("my friends called", "the critics called", "the poster promised me")
WHERE = (
    "",
    " in this film",
    " in the first half",
    " throughout",
    " for once",
    " from start to finish",
)


def sentence(rng: random.Random) -> tuple[tuple[str], int]:
    """((sentence,), 1 positive or 0 negative)."""
    good = rng.random() < 0.5
    text = rng.choice((_plain, _contrast, _contrast, _hearsay, _wish))(rng, good)
    return (text[0].upper() + text[1:] + ".",), int(good)


def _verdict(rng: random.Random, good: bool) -> str:
    """``brilliant``, or ``not dull``: one judgement, plain or negated."""
    if rng.random() < 0.5:
        return rng.choice(GOOD if good else BAD)
    return (
        rng.choice(("not", "never", "hardly", "far from")) + " " + rng.choice(BAD if good else GOOD)
    )


def _plain(rng: random.Random, good: bool) -> str:
    return f"the {rng.choice(PARTS)} is {_verdict(rng, good)}{rng.choice(WHERE)}"


def _contrast(rng: random.Random, good: bool) -> str:
    """The clause that `but` introduces, or `although` leaves as the main one, decides."""
    one, two = rng.sample(PARTS, 2)
    minor, major = f"the {one} is {_verdict(rng, not good)}", f"the {two} is {_verdict(rng, good)}"
    return rng.choice(
        (f"{minor}, but {major}", f"although {minor}, {major}", f"{major}, even though {minor}")
    )


def _hearsay(rng: random.Random, good: bool) -> str:
    """What others said, and what turned out to be true."""
    part = rng.choice(PARTS)
    said = f"{rng.choice(HEARSAY)} the {part} {rng.choice(BAD if good else GOOD)}"
    return f"{said}, yet I found it {_verdict(rng, good)}{rng.choice(WHERE)}"


def _wish(rng: random.Random, good: bool) -> str:
    """An expectation whose opposite came true."""
    expected = rng.choice(BAD if good else GOOD)
    part, mood = rng.choice(PARTS), "happily" if good else "sadly"
    return f"I expected a {expected} film and was {mood} wrong about the {part}"
