"""WNLI-like: who does the pronoun refer to? Verb and reason decide, not the order of names."""

import random

from .language import PEOPLE, PLACES, TIMES

SUBJECT, OBJECT = 0, 1
# (verb in the past, reason, who the reason is about)
REASONS = (
    ("envied", "was famous", OBJECT), ("envied", "was jealous by nature", SUBJECT),
    ("feared", "was dangerous", OBJECT), ("feared", "was easily scared", SUBJECT),
    ("thanked", "had been helpful", OBJECT), ("thanked", "felt grateful", SUBJECT),
    ("impressed", "played so well", SUBJECT), ("impressed", "was easy to please", OBJECT),
    ("bored", "told long stories", SUBJECT), ("bored", "had no patience", OBJECT),
    ("comforted", "was crying", OBJECT), ("comforted", "was kind", SUBJECT),
    ("bullied", "was small and weak", OBJECT), ("bullied", "was cruel", SUBJECT),
    ("paid", "had fixed the roof", OBJECT), ("paid", "owed money", SUBJECT),
    ("called", "needed advice", SUBJECT), ("called", "could give advice", OBJECT),
    ("hired", "needed a helper", SUBJECT), ("hired", "had long experience", OBJECT),
    ("scolded", "had broken the vase", OBJECT), ("scolded", "was in a bad mood", SUBJECT),
    ("visited", "was ill in bed", OBJECT), ("visited", "wanted company", SUBJECT),
)  # fmt: skip


def pair(rng: random.Random) -> tuple[tuple[str, str], int]:
    """((sentence with a pronoun, sentence with a name in its place), 1 entailed or 0 not)."""
    verb, reason, about = rng.choice(REASONS)
    people = rng.sample(sorted(PEOPLE), 2)
    subject, object_ = people
    core = (
        f"{object_} was {verb} by the {subject}"
        if rng.random() < 0.4
        else f"{subject} {verb} the {object_}"
    )
    extra = " " + rng.choice(PLACES + TIMES) if rng.random() < 0.6 else ""
    entailed = rng.random() < 0.5
    named = people[about if entailed else 1 - about]
    return (f"The {core}{extra} because she {reason}.", f"The {named} {reason}."), int(entailed)
