import numpy as np
import pytest

from lora_bench.compose import compose
from lora_bench.data import load, load_split, toy
from lora_bench.spec import SpecError
from lora_bench.tasks import make_task

TASKS = sorted(toy.GENERATORS)


@pytest.mark.parametrize("name", TASKS)
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


@pytest.mark.parametrize("name", TASKS)
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
