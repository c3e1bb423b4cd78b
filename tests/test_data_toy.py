import numpy as np
import pytest

from lora_bench.compose import compose
from lora_bench.data import load, load_split, toy
from lora_bench.errors import SpecError
from lora_bench.record_formats import fingerprint_of
from lora_bench.tasks import make_task

from .helpers import every, mostly_slow

TASKS = sorted(toy.GENERATORS)


@pytest.mark.parametrize("name", mostly_slow(TASKS, ["mnli", "rte"]))
def test_toy_data_is_seeded_varied_and_without_overlap(name):
    spec = compose([f"task={name}", "data=toy"])
    splits = load(make_task(spec.task), spec.data)
    texts = {
        split: [tuple(row[c] for c in spec.task.columns) for row in rows.rows]
        for split, rows in splits.items()
    }
    everything = [t for group in texts.values() for t in group]
    assert len(set(everything)) == len(everything)
    assert len(texts["train"]) >= 1000 and len(texts[spec.task.validation[0]]) >= 300
    again = load(make_task(spec.task), spec.data)
    assert all(again[s].fingerprint() == splits[s].fingerprint() for s in splits)
    other = compose([f"task={name}", "data=toy", "data.seed=1"])
    assert (
        load_split(make_task(other.task), other.data, "train").fingerprint()
        != splits["train"].fingerprint()
    )


@pytest.mark.parametrize("name", every(4, TASKS))
def test_noise_sets_a_ceiling_between_chance_and_one(name):
    spec = compose([f"task={name}", "data=toy"])
    task, splits = make_task(spec.task), load(make_task(spec.task), spec.data)
    split, metric = spec.task.validation[0], spec.task.metrics[0]
    points = task.reference_points(splits["train"].rows, splits[split].rows, split)
    chance, words, ceiling = (
        points[name][metric] for name in ("chance", "bag_of_words", "ceiling")
    )
    assert chance + 0.2 < ceiling < 1.0
    assert words < ceiling - 0.25  # no word gives a label away
    if spec.task.labels:
        everything = [row for split in splits.values() for row in split.rows]
        flipped = np.mean([row["label"] != row["clean_label"] for row in everything])
        assert flipped == pytest.approx(toy.NOISE, abs=0.02)
        shares = np.bincount([row["label"] for row in everything]) / len(everything)
        assert len(shares) == len(spec.task.labels) and shares.min() > 0.2


def test_validation_does_not_change_with_the_size_of_training():
    small = compose(["task=cola", "data=toy", "data.toy_train=50"])
    large = compose(["task=cola", "data=toy", "data.toy_train=500"])
    a, b = (
        load_split(make_task(s.task), s.data, "validation").fingerprint() for s in (small, large)
    )
    assert a == b


def test_a_task_without_toy_data_and_an_exhausted_generator_say_so(monkeypatch):
    spec = compose(["task=cola", "data=toy"])
    monkeypatch.setitem(toy.GENERATORS, "cola", lambda rng: ((f"Sentence {rng.randrange(5)}.",), 1))
    with pytest.raises(SpecError, match="fewer different examples"):
        load(make_task(spec.task), spec.data)
    monkeypatch.delitem(toy.GENERATORS, "cola")
    with pytest.raises(SpecError, match="task=cola: data=toy has only"):
        load(make_task(spec.task), spec.data)


# Fingerprints of all splits at the default sizes, and of random parts of other sizes and seed.
ROWS = {
    "cola": ("0e6635704ac7be4d", "f43de09c3db83f1a"),
    "mnli": ("0076714d33fb4e75", "915220e451075895"),
    "mrpc": ("a8e011163a0625ad", "a4f3d92a680c9a99"),
    "qnli": ("df7492a128d8ba4c", "44be3639821622d8"),
    "qqp": ("138c332f7c8a8a04", "53ebc9e8be8208b9"),
    "rte": ("7c60656c56c10d78", "38df7f094848e258"),
    "sst2": ("5d5abc0c34dabc5f", "d390bac40303235b"),
    "stsb": ("5a5fd246dcee9f2a", "079c28bc3501ad4c"),
    "wnli": ("6892305ab6127bfd", "756b0ef64715cb8f"),
    "squad_v1": ("871b8167e7b54703", "e38c938a7aa9a9c1"),
    "squad_v2": ("56fe98700031db50", "5e0b8bea8f896df7"),
}


@pytest.mark.parametrize("name", every(4, ROWS))
def test_the_generated_rows_are_those_of_earlier_results(name):
    """Committed results name these rows; other rows would need another task version."""
    sizes = ["toy_train=120", "toy_validation=40", "train_rows=50", "validation_rows=20"]
    for more, expected in zip(([], ["seed=3", *sizes]), ROWS[name], strict=True):
        spec = compose([f"task={name}", "data=toy", *(f"data.{setting}" for setting in more)])
        splits = load(make_task(spec.task), spec.data)
        prints = {name: rows.fingerprint() for name, rows in splits.items()}
        assert fingerprint_of(prints) == expected
