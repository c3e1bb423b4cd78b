"""Loading from the hub, with a cache that is filled by hand and without a network."""

import math

import datasets
import huggingface_hub
import pytest
from datasets.arrow_writer import ArrowWriter
from transformers import BertModel

from lora_bench import network
from lora_bench.compose import compose
from lora_bench.data import DataError, load, load_split
from lora_bench.errors import UserError
from lora_bench.model.encoder import load_encoder
from lora_bench.model.source import locate
from lora_bench.spec import DataSpec, ModelSpec, TaskSpec
from lora_bench.studies.low_rank.data import load as load_images
from lora_bench.studies.low_rank.settings import Settings
from lora_bench.tasks import make_task
from lora_bench.training.run import run

from .conftest import MINILM
from .helpers import GLUE, SQUAD, TASKS, every


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty ``datasets`` cache; call it with a task to fill in rows as a download would."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    def fill_glue(
        task: TaskSpec, *, revision: str | None = None, labels: list[str] | None = None
    ) -> None:
        label = (
            datasets.ClassLabel(names=labels or task.labels)
            if task.labels
            else datasets.Value("float32")
        )
        columns = {column: datasets.Value("string") for column in task.columns}
        features = datasets.Features({**columns, "label": label, "idx": datasets.Value("int32")})
        splits = {}
        for split in ("train", *task.validation):
            texts = [
                {column: f"{column} of {split} {i}" for column in task.columns} for i in range(24)
            ]
            labeled = [i % 2 if task.labels else i % 6 * 0.9 for i in range(24)]
            splits[split] = [
                {**t, "label": x, "idx": i}
                for i, (t, x) in enumerate(zip(texts, labeled, strict=True))
            ]
        fill(tmp_path, task, features, splits, revision)

    return fill_glue


def fill(
    root, task: TaskSpec, features, splits: dict[str, list[dict]], revision: str | None = None
) -> None:
    """Put rows into a ``datasets`` cache as a download of the task would."""
    owner, name = task.hub.path.split("/")
    folder = root / f"{owner}___{name}" / task.hub.name / "0.0.0" / (revision or task.hub.revision)
    folder.mkdir(parents=True)
    facts = datasets.splits.SplitDict(dataset_name=name)
    for split, rows in splits.items():
        with ArrowWriter(features=features, path=str(folder / f"{name}-{split}.arrow")) as writer:
            for row in rows:
                writer.write(row)
            count, size = writer.finalize()
        facts.add(datasets.SplitInfo(split, num_bytes=size, num_examples=count, dataset_name=name))
    info = datasets.DatasetInfo(
        features=features, splits=facts, builder_name="parquet", dataset_name=name,
        config_name=task.hub.name, version="0.0.0",
    )  # fmt: skip
    info.write_to_directory(str(folder))


@pytest.mark.parametrize("name", every(3, GLUE))
def test_every_task_loads_from_the_cache(cache, name):
    spec = compose([f"task={name}", "data=hub"])
    cache(spec.task)
    splits = load(make_task(spec.task), spec.data)
    assert set(splits) == {"train", *spec.task.validation}
    row = splits["train"].rows[5]
    assert row == {
        **{c: f"{c} of train 5" for c in spec.task.columns},
        "label": 1 if spec.task.labels else 4.5,
    }
    assert spec.task.hub.revision[:10] in splits["train"].source


@pytest.mark.parametrize("name", SQUAD)
def test_squad_loads_from_the_cache(tmp_path, monkeypatch, name):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    spec = compose([f"task={name}", "data=hub"])
    text, number = datasets.Value("string"), datasets.Value("int32")
    answers = {"text": datasets.List(text), "answer_start": datasets.List(number)}
    features = datasets.Features(
        dict.fromkeys(("id", "title", "context", "question"), text) | {"answers": answers}
    )
    row = {"id": "1", "title": "t", "context": "Ann sleeps.", "question": "Who?"}
    row["answers"] = {"text": ["Ann"], "answer_start": [0]}
    fill(tmp_path, spec.task, features, {"train": [row], "validation": [row]})
    assert load_split(make_task(spec.task), spec.data, "validation").rows == [row]


def test_a_hub_run_records_the_revision(cache, tiny_spec):
    spec = tiny_spec("task=rte", "data=hub", "train.epochs=1")
    cache(spec.task)
    assert run(spec).data["train"]["source"] == "hub nyu-mll/glue rte train@bcdcba79d0"


def test_an_empty_cache_another_revision_and_other_labels_give_a_one_line_error(cache):
    spec = compose(["task=rte", "data=hub"])
    with pytest.raises(
        DataError, match="cannot be loaded .* offline choices: data=toy, or data=local"
    ) as caught:
        load_split(make_task(spec.task), spec.data, "train")
    assert "\n" not in str(caught.value)
    cache(spec.task, labels=["not_entailment", "entailment"])
    with pytest.raises(DataError, match=r"labels are \['not_entailment', 'entailment'\]; must be"):
        load_split(make_task(spec.task), spec.data, "train")
    other = compose(["task=wnli", "data=hub"])
    cache(other.task, revision="0" * 40)
    with pytest.raises(DataError, match="the cache holds another revision|cannot be loaded"):
        load_split(make_task(other.task), other.data, "train")


WRONG_ROWS = {  # what is wrong -> what the message says
    "label": (-1, "row 1: label is -1; must be a whole number from 0 to 1"),
    "sentence1": (None, "row 1: column sentence1 is None; must be text"),
}


@pytest.mark.parametrize("column", WRONG_ROWS)
def test_a_wrong_row_of_the_hub_is_refused(monkeypatch, column):
    value, message = WRONG_ROWS[column]
    spec = compose(["task=rte", "data=hub"])
    good = {"sentence1": "a", "sentence2": "b", "label": 0}
    hub_gives(monkeypatch, spec, [good, {**good, column: value}])
    with pytest.raises(DataError, match=f"nyu-mll/glue rte train: {message}"):
        load_split(make_task(spec.task), spec.data, "train")


@pytest.mark.parametrize("target", [99.0, math.nan])
def test_a_target_of_the_hub_outside_the_range_is_refused(monkeypatch, target):
    spec = compose(["task=stsb", "data=hub"])
    hub_gives(monkeypatch, spec, [{"sentence1": "a", "sentence2": "b", "label": target}])
    with pytest.raises(DataError, match="label is (99.0|nan); must be a number from 0 to 5"):
        load_split(make_task(spec.task), spec.data, "train")


ANSWERS = {  # answers, ids -> what the message says
    ((), ("1",)): "row 0: has no answer; every question of squad_v1 must have one",
    ((("Ann", 4),), ("1",)): "row 0: answer 'Ann' is not at its offset 4",
    ((("Ann", 0),), ("1", "1")): "row 1: an earlier question has this id; must be unique",
}


@pytest.mark.parametrize(("answers", "ids"), ANSWERS)
def test_a_wrong_question_of_the_hub_is_refused(monkeypatch, answers, ids):
    spec = compose(["task=squad_v1", "data=hub"])
    texts = {"text": [text for text, _ in answers], "answer_start": [at for _, at in answers]}
    row = {"title": "t", "context": "Ann sleeps.", "question": "Who?", "answers": texts}
    hub_gives(monkeypatch, spec, [{"id": one, **row} for one in ids])
    with pytest.raises(DataError, match=ANSWERS[answers, ids]):
        load_split(make_task(spec.task), spec.data, "validation")


def hub_gives(monkeypatch, spec, rows: list[dict]) -> None:
    """Let the hub hold these rows in every split."""
    found = datasets.Dataset.from_list(rows)
    if spec.task.labels:
        found = found.cast_column("label", datasets.ClassLabel(names=spec.task.labels))
    found._data_files = [{"filename": spec.task.hub.revision}]
    monkeypatch.setattr(type(found), "cache_files", property(lambda self: self._data_files))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: found)


@pytest.mark.parametrize("revision", ["", "main", "e"])
def test_a_revision_that_is_no_commit_is_refused(revision):
    spec = compose(["task=rte", "data=hub", f"task.hub.revision={revision}"])
    with pytest.raises(DataError, match=f"task.hub.revision={revision}: must be the 40 hexadecim"):
        load_split(make_task(spec.task), spec.data, "train")


def test_a_folder_is_no_repository_of_the_hub(tmp_path):
    spec = compose(["task=rte", "data=hub", f"task.hub.path={tmp_path}"])
    with pytest.raises(DataError, match="is a folder; must be a repository on the hub"):
        load_split(make_task(spec.task), spec.data, "train")


def broken(*_, **__):
    raise OSError


LOADERS = {
    "rows": (
        datasets,
        "load_dataset",
        lambda: load_split(make_task(TASKS["rte"]), DataSpec("hub"), "train"),
    ),
    "images": (datasets, "load_dataset", lambda: load_images(Settings(data="mnist"))),
    "files": (huggingface_hub, "snapshot_download", lambda: locate(ModelSpec("x", "nosuch/model"))),
    "encoder": (BertModel, "from_pretrained", lambda: load_encoder(MINILM, dropout=0.0)),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_an_error_of_a_library_without_a_message_is_named(monkeypatch, loader):
    """Its message had no first line to show."""
    home, name, load_it = LOADERS[loader]
    monkeypatch.setattr(home, name, broken)
    with pytest.raises(UserError, match=r"cannot be loaded .*\(OSError\)"):
        load_it()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_behind_a_proxy_the_hub_is_asked(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network.socket, "create_connection", broken)
    for other in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(other, raising=False)
    assert not network.hub_reachable.__wrapped__()
    monkeypatch.setenv(name, "http://proxy:3128")
    assert network.hub_reachable.__wrapped__()
