"""A small English lexicon, and frames (who does what to whom, where and when) as sentences."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

PEOPLE = {  # noun -> its hypernym
    "doctor": "person", "nurse": "person", "teacher": "person", "farmer": "person",
    "lawyer": "person",
    "singer": "person", "painter": "person", "pilot": "person", "baker": "person",
    "sailor": "person",
    "student": "person", "waiter": "person", "engineer": "person", "judge": "person",
    "gardener": "person",
}  # fmt: skip
ANIMALS = {
    "dog": "animal", "cat": "animal", "horse": "animal", "rabbit": "animal", "goat": "animal",
    "fox": "animal",
    "sparrow": "bird", "eagle": "bird", "parrot": "bird",
}  # fmt: skip
HYPERNYM = {**PEOPLE, **ANIMALS}
PLURAL = {"person": "people", "fox": "foxes"}

# verb -> (third person singular, past, near synonym or "", opposite or "")
VERBS = {
    "help": ("helps", "helped", "assist", "hinder"),
    "assist": ("assists", "assisted", "help", "hinder"),
    "hinder": ("hinders", "hindered", "", "help"),
    "praise": ("praises", "praised", "commend", "criticize"),
    "commend": ("commends", "commended", "praise", "criticize"),
    "criticize": ("criticizes", "criticized", "", "praise"),
    "chase": ("chases", "chased", "pursue", ""),
    "pursue": ("pursues", "pursued", "chase", ""),
    "visit": ("visits", "visited", "", "avoid"),
    "avoid": ("avoids", "avoided", "", "visit"),
    "push": ("pushes", "pushed", "shove", "pull"),
    "shove": ("shoves", "shoved", "push", "pull"),
    "pull": ("pulls", "pulled", "", "push"),
    "trust": ("trusts", "trusted", "", "doubt"),
    "doubt": ("doubts", "doubted", "", "trust"),
    "greet": ("greets", "greeted", "welcome", "ignore"),
    "welcome": ("welcomes", "welcomed", "greet", "ignore"),
    "ignore": ("ignores", "ignored", "", "greet"),
    "follow": ("follows", "followed", "", "lead"),
    "lead": ("leads", "led", "", "follow"),
}
ADJECTIVES = {  # adjective -> (near synonym or "", opposite)
    "happy": ("glad", "sad"), "glad": ("happy", "unhappy"), "sad": ("unhappy", "happy"),
    "unhappy": ("sad", "glad"),
    "young": ("youthful", "old"), "youthful": ("young", "aged"), "old": ("aged", "young"),
    "aged": ("old", "youthful"),
    "rich": ("wealthy", "poor"), "wealthy": ("rich", "needy"), "poor": ("needy", "rich"),
    "needy": ("poor", "wealthy"),
    "brave": ("fearless", "timid"), "fearless": ("brave", "shy"), "timid": ("shy", "brave"),
    "shy": ("timid", "fearless"),
    "quick": ("fast", "slow"), "fast": ("quick", "sluggish"), "slow": ("sluggish", "quick"),
    "sluggish": ("slow", "fast"),
    "clever": ("smart", "foolish"), "smart": ("clever", "silly"),
    "foolish": ("silly", "clever"), "silly": ("foolish", "smart"),
    "tall": ("", "short"), "short": ("", "tall"),
}  # fmt: skip
PLACES = (
    "in the garden", "at the station", "near the river", "in the library", "at the market",
    "on the bridge",
    "in the kitchen", "behind the church", "at the harbor", "in the forest",
)  # fmt: skip
TIMES = ("yesterday", "last week", "on Monday", "in the morning", "this evening", "in spring")


def plural(noun: str) -> str:
    """The plural of a noun."""
    return PLURAL.get(noun, noun + "s")


@dataclass(frozen=True)
class Frame:
    """One event in the past tense; an empty string is a part that is left out."""

    subject: str
    verb: str
    object: str
    subject_adjective: str = ""
    object_adjective: str = ""
    place: str = ""
    time: str = ""
    negated: bool = False

    def text(self, rng: random.Random) -> str:
        """The event as a sentence, active or passive, place and time in random positions."""
        subject = " ".join(filter(None, ("the", self.subject_adjective, self.subject)))
        object_ = " ".join(filter(None, ("the", self.object_adjective, self.object)))
        past = VERBS[self.verb][1]
        if rng.random() < 0.3:
            was = "was not" if self.negated else "was"
            core = f"{object_} {was} {past} by {subject}"
        else:
            core = (
                f"{subject} did not {self.verb} {object_}"
                if self.negated
                else f"{subject} {past} {object_}"
            )
        if self.place:
            core = f"{core} {self.place}"
        if self.time:
            core = f"{self.time} {core}" if rng.random() < 0.4 else f"{core} {self.time}"
        return core[0].upper() + core[1:] + "."

    def swapped(self) -> "Frame":
        """The same words with the roles swapped."""
        return replace(
            self,
            subject=self.object,
            object=self.subject,
            subject_adjective=self.object_adjective,
            object_adjective=self.subject_adjective,
        )


def frame(
    rng: random.Random, *, adjective: float = 0.5, place: float = 0.6, time: float = 0.4
) -> Frame:
    """A random event; the numbers are the chances of the optional parts."""
    subject, object_ = rng.sample(sorted(HYPERNYM), 2)

    def maybe(chance: float, words: Iterable[str]) -> str:
        return rng.choice(sorted(words)) if rng.random() < chance else ""

    return Frame(
        subject,
        rng.choice(sorted(VERBS)),
        object_,
        maybe(adjective, ADJECTIVES),
        maybe(adjective, ADJECTIVES),
        maybe(place, PLACES),
        maybe(time, TIMES),
    )


def paraphrase(event: Frame, rng: random.Random) -> Frame:
    """The same meaning with near synonyms where there are any."""
    verb = VERBS[event.verb][2] or event.verb

    def synonym(adjective: str) -> str:
        return (
            (ADJECTIVES[adjective][0] or adjective)
            if adjective and rng.random() < 0.7
            else adjective
        )

    return replace(
        event,
        verb=verb if rng.random() < 0.7 else event.verb,
        subject_adjective=synonym(event.subject_adjective),
        object_adjective=synonym(event.object_adjective),
    )


def other(word: str, words: Iterable[str], rng: random.Random) -> str:
    """A different word of the same kind."""
    return rng.choice([w for w in sorted(words) if w != word])
