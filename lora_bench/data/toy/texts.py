"""Rows of text tasks: a generator for each task, ``(random.Random) -> (texts, clean label)``."""

import random
from collections.abc import Callable
from typing import Any

from ...errors import SpecError
from ...spec import DataSpec, TaskSpec
from . import acceptability, answer, coreference, inference, paraphrase, sentiment, similarity
from .sizes import NOISE, sizes

Generator = Callable[[random.Random], tuple[tuple[str, ...], float]]

PATIENCE = 200  # repeated texts in a row after which a generator counts as exhausted
GENERATORS: dict[str, Generator] = {
    "cola": acceptability.sentence,
    "sst2": sentiment.sentence,
    "mrpc": paraphrase.sentences,
    "stsb": similarity.pair,
    "qqp": paraphrase.questions,
    "mnli": inference.three_way,
    "qnli": answer.pair,
    "rte": inference.two_way,
    "wnli": coreference.pair,
}


def generator(task: TaskSpec) -> Generator:
    """The generator of a task.

    Raises:
        SpecError: there is none.
    """
    if task.name not in GENERATORS:
        allowed = f"data=toy has only {', '.join(sorted(GENERATORS))}; choose another data"
        raise SpecError("task", task.name, allowed)
    return GENERATORS[task.name]


def rows(task: TaskSpec, data: DataSpec, split: str) -> list[dict[str, Any]]:
    """Rows of a split; no text is in two splits.

    Args:
        task: the task; its name selects the generator.
        data: sizes and seed.
        split: split to generate.

    Raises:
        SpecError: there is no generator, or it cannot make that many different texts.
        ValueError: the split is not generated.
    """
    rng = random.Random(f"{task.name} {data.seed}")
    seen: set[tuple[str, ...]] = set()
    for name, size in sizes(task, data).items():
        found = [_row(task, rng, seen) for _ in range(size)]
        if name == split:
            return found
    raise ValueError(f"split={split}: is not generated")


def _row(task: TaskSpec, rng: random.Random, seen: set[tuple[str, ...]]) -> dict[str, Any]:
    draw = generator(task)
    for _ in range(PATIENCE):
        texts, label = draw(rng)
        if texts not in seen:
            seen.add(texts)
            _check(task, len(texts), label)
            row = dict(zip(task.columns, texts, strict=True))
            return {**row, "label": _noisy(label, task, rng), "clean_label": label}
    raise SpecError(
        "data.toy_train",
        len(seen),
        f"the {task.name} generator has fewer different examples; ask for fewer",
    )


def _check(task: TaskSpec, texts: int, label: float) -> None:
    """Compare the output of a generator with the settings of the task.

    Raises:
        SpecError: the number of text columns differs, or there are too few labels.
    """
    if texts != len(task.columns):
        reason = f"data=toy generates {texts} of them for {task.name}"
        raise SpecError("task.columns", task.columns, reason)
    if task.labels and label >= len(task.labels):
        reason = f"data=toy generates more of them for {task.name}"
        raise SpecError("task.labels", task.labels, reason)


def _noisy(label: float, task: TaskSpec, rng: random.Random) -> float:
    if not task.labels:
        low, high = task.value_range
        return round(min(high, max(low, label + rng.gauss(0, NOISE * (high - low)))), 3)
    if rng.random() >= NOISE:
        return label
    return rng.choice([other for other in range(len(task.labels)) if other != label])
