"""The spread over validation examples, from stored predictions."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import matthews_corrcoef

from lora_bench import items
from lora_bench.items import Scored, describe, interval, read_scored
from lora_bench.record import read, write
from lora_bench.tasks import make_task
from lora_bench.tasks.answers import Answer
from lora_bench.training.prepared import prepare
from lora_bench.training.run import run

from .helpers import TASKS, mostly_slow


def folder_of(tiny_spec, *words):
    spec = tiny_spec(*words, "train.epochs=1")
    run(spec)
    return prepare(spec).folder


def classified(right: np.ndarray, references=None) -> Scored:
    """Predictions of SST-2 that are right where it says so."""
    task = make_task(TASKS["sst2"])
    references = np.arange(len(right)) % 2 if references is None else references
    predictions = np.where(right, references, 1 - references)
    rows = [{"label": int(label)} for label in references]
    return Scored("key", task, "validation", task.stored(predictions, rows), None)


def test_the_interval_of_an_accuracy_is_that_of_a_proportion():
    right = np.random.default_rng(0).random(800) < 0.9
    run_ = classified(right)
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
    low, high = interval([run_])
    assert low == pytest.approx(right.mean() - half, abs=0.004)
    assert high == pytest.approx(right.mean() + half, abs=0.004)
    assert (run_.right == right).all() and (run_.of_each == right).all()


def test_a_constant_guess_is_right_where_it_agrees_with_the_reference():
    """Its Matthews correlation is 0 for each example, for every resample and as a whole."""
    references = np.array([0, 1, 1, 0, 1])
    task = make_task(TASKS["cola"])
    rows = [{"label": int(label)} for label in references]
    guess = Scored("key", task, "validation", task.stored(np.ones(5, int), rows), None)
    assert guess.metric == "matthews" and (guess.right == (references == 1)).all()
    task = make_task(TASKS["stsb"])
    guess = task.stored(np.full(4, 2.5), [{"label": float(target)} for target in range(4)])
    assert Scored("key", task, "validation", guess, None).right is None


@pytest.mark.slow
def test_a_metric_that_is_no_mean_is_computed_again_for_each_resample():
    rng = np.random.default_rng(1)
    task = make_task(TASKS["cola"])
    references = rng.integers(2, size=300)
    predictions = np.where(rng.random(300) < 0.8, references, 1 - references)
    rows = [{"label": int(label)} for label in references]
    run_ = Scored("key", task, "validation", task.stored(predictions, rows), None)
    assert run_.of_each is None and (run_.right == (predictions == references)).all()
    chosen = rng.integers(300, size=300)
    expected = matthews_corrcoef(references[chosen], predictions[chosen])
    assert run_.score(chosen) == pytest.approx(expected)
    low, high = interval([run_])
    assert low < matthews_corrcoef(references, predictions) < high and high - low < 0.3


@pytest.mark.parametrize("name", ["squad_v1", "squad_v2"])
def test_answers_are_scored_as_by_the_task(name):
    task = make_task(TASKS[name])
    texts = ["in Rome", "Bern", "", "a b c"]
    accepted = [["Rome"], ["Bern"], [] if name == "squad_v2" else ["x"], ["b c", "c"]]
    answers = [Answer(text, odds, []) for text, odds in zip(texts, (-3, 2, 5, -1), strict=True)]
    rows = [{"answers": {"text": texts}} for texts in accepted]
    threshold = 1.0 if name == "squad_v2" else None
    run_ = Scored("key", task, "validation", task.stored(answers, rows), threshold)
    whole = task.score(answers, rows, "validation", threshold)
    assert run_.metric == next(iter(whole)) and run_.of_each is not None
    assert run_.score(np.arange(4)) == pytest.approx(whole[run_.metric])
    part = [0, 3, 3]
    again = task.score([answers[i] for i in part], [rows[i] for i in part], "", threshold)
    assert run_.score(np.array(part)) == pytest.approx(again[run_.metric])


def test_two_runs_are_compared_example_by_example():
    rng = np.random.default_rng(2)
    right = rng.random(500) < 0.8
    other = right ^ (rng.random(500) < 0.02)  # nearly the same: paired, the difference is small
    low, high = interval([classified(right), classified(other)])
    alone = interval([classified(right)])
    assert low <= right.mean() - other.mean() <= high
    assert high - low < (alone[1] - alone[0]) / 2
    lines = describe([classified(right), classified(other)])
    counts = f"{(right & ~other).sum()} and {(other & ~right).sum()} examples"
    assert len(lines) == 4 and counts in lines[3] and "McNemar" in lines[3]
    assert len(describe([classified(right)])) == 1
    with pytest.raises(items.UserError, match="not scored on the same examples of validation"):
        describe([classified(right), classified(right, np.zeros(500, dtype=int))])


def test_runs_on_other_texts_with_the_same_labels_are_not_compared(tiny_spec, tmp_path, capsys):
    folders = []
    for word in ("good", "bad"):
        folder = tmp_path / word / "SST-2"
        folder.mkdir(parents=True)
        lines = [f"a {word} film {i}\t{i % 2}" for i in range(24)]
        for name in ("train", "dev"):
            (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
        words = ("task=sst2", "data=local", f"data.root={folder.parent}", "data.skip_bad=true")
        folders.append(str(folder_of(tiny_spec, *words)))
    with pytest.raises(SystemExit, match="were not scored on the same examples of validation"):
        items.main(folders)


@pytest.mark.parametrize("task", mostly_slow(["stsb", "mnli", "squad_v2"], ["stsb"]))
def test_the_command_reads_what_a_run_stored(tiny_spec, task, capsys):
    folder = folder_of(tiny_spec, f"task={task}")
    items.main([str(folder)])
    lines = capsys.readouterr().out.splitlines()
    scored = [path.stem for path in sorted((folder / "predictions").glob("*.parquet"))]
    assert set(TASKS[task].validation) <= set(scored)
    assert [line.split()[:2] for line in lines] == [[f"{folder.name}:", s] for s in scored]
    assert all("95 % interval over" in line for line in lines)


def test_what_cannot_be_read_gives_a_one_line_error(tiny_spec, tmp_path):
    folder, other = (folder_of(tiny_spec, f"task={task}") for task in ("sst2", "mnli"))

    def message(*folders):
        with pytest.raises(SystemExit) as caught:
            items.main([str(folder) for folder in folders])
        text = str(caught.value.code)
        assert text.startswith("error: ") and "\n" not in text
        return text

    assert "must be one, or two" in message(folder, folder, folder)
    assert "have no split in common" in message(folder, other)
    assert "has no finished run" in message(tmp_path)
    path = folder / "predictions" / "validation.parquet"
    table = pd.read_parquet(path)
    table.assign(prediction=table.reference).to_parquet(path)
    assert "and the record says" in message(folder)
    table.drop(columns="reference").to_parquet(path)
    assert "cannot be read" in message(folder)
    path.write_bytes(b"PAR1")
    assert "cannot be read" in message(folder)
    path.unlink()
    assert "its predictions are missing" in message(folder)
    record = read(other)
    record.status = "failed"
    write(other, record)
    assert "has no finished run" in message(other)


def test_scores_agree_with_the_record(tiny_spec):
    folder = folder_of(tiny_spec, "task=stsb")
    (found,) = read_scored(folder).values()
    assert found.score(np.arange(len(found.table))) == pytest.approx(
        read(folder).last["scores"]["pearson"], abs=1e-6
    )
