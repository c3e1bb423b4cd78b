"""The protocol of tasks: settings that are refused before loading, and what every kind offers."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lora_bench import data, tasks
from lora_bench.checkpoint import AdapterError
from lora_bench.checkpoint.restore import stock_of
from lora_bench.compose import compose, validate
from lora_bench.errors import SpecError, UserError
from lora_bench.presets import task_presets
from lora_bench.spec import HubLayout, LocalLayout, TaskSpec
from lora_bench.tasks import Task, make_task
from lora_bench.tasks.answers import Answer
from lora_bench.tasks.span import SpanArgs

from .helpers import every

LOCAL = ["data=local", "data.root=x"]

# words of a command line -> the start of the error
REFUSED = {
    "task.kind=nosuch": "task.kind=nosuch: must be one of span, text",
    "task.metrics=[nosuch]": "task.metrics=[nosuch]: must be among accuracy, f1, matthews",
    "task.metrics=[pearson]": "task.metrics=[pearson]: must be among accuracy",
    "task.metrics=[]": "task.metrics=[]: must name a metric",
    "task=stsb task.metrics=[accuracy]": "task.metrics=[accuracy]: must be among pearson, spearman",
    "task=mnli task.metrics=[f1]": "task.metrics=[f1]: must be among accuracy, matthews",
    "task=mnli task.optional.diagnostics=[f2]": "task.optional.diagnostics=[f2]: must be among",
    "task=squad_v1 task.metrics=[exact]": "task.metrics=[exact]: must be among f1, exact_match",
    "task.validation=[train]": "task.validation=['train']: train cannot be a split to score",
    "task.validation=[]": "task.validation=[]: must name a split",
    "+task.optional.held_out=[f1]": "task.optional=['held_out']: held_out cannot be a split",
    "task.submission.test=../x.tsv": "task.submission.test='../x.tsv': must be the name of a .tsv",
    "task.submission.test=/x.tsv": "task.submission.test='/x.tsv': must be the name of a .tsv file",
    "task.submission.test=..": "task.submission.test='..': must be the name of a .tsv file",
    "task.submission.test=submission.zip": "task.submission.test='submission.zip': must be the",
    "+task.submission.test_b=CoLA.tsv": "task.submission=[CoLA.tsv,CoLA.tsv]: must not contain dup",
    "task.columns=[]": "task.columns=[]: must name one or two text columns",
    "task.labels=[]": "task.labels=[]: exactly one of labels and value_range must be set",
    "task.value_range=[0,1]": "task.labels=['unacceptable', 'acceptable']: exactly one of labels",
    "task=stsb task.value_range=[5,0]": "task.value_range=[5.0, 0.0]: must be the lowest and",
    "task.labels=[a,a]": "task.labels=['a', 'a']: must be two or more different names",
    "task.labels=[a,b,c]": "task.local.label_values=['0', '1']: must be one for each label",
    "task.local.label_values=[1,1]": "task.local.label_values=['1', '1']: must not contain dup",
    "task.local.columns={sentence:label}": "task.local.columns={'sentence': 'label'}: names label",
    "task.columns=[sentence,label]": "task.columns=['sentence', 'label']: label cannot be a text",
    "task.local.label= +task.local.columns={sentence:label}": "task.local.columns={'sentence': ",
    "+task.local.headers.other=[a]": "task.local.headers={'train': ['source', 'label', 'mark', ",
    "task.local.headerless=[tset]": "task.local.headerless=['tset']: task.local.files has no tset",
    "+task.local.other_names.tset={a:b}": "task.local.other_names={'tset': {'a': 'b'}}: task.loc",
    "task.local.files.train=a.jsonl": "task.local.headers=train: has no effect on a.jsonl",
    "data=local data.root=x +task.optional.tset=[f1]": "task.optional.tset=['f1']: task.local.fil",
    "+task.submission.blind=a.tsv": "task.submission.blind=a.tsv: the split's name must begin wit",
    "task.validation=[validation_new,new]": "task.validation=['validation_new', 'new']: must diff",
    "task=squad_v1 task.labels=[a,b]": "task.labels=['a', 'b']: kind=span does not use it",
    "task=squad_v1 task.value_range=[0,1]": "task.value_range=[0.0, 1.0]: kind=span does not use",
    "task=squad_v1 task.columns=[context,question]": "task.columns=['context', 'question']: must b",
    "task=stsb +task.args.held_out=0.3": "task.args.held_out=0.3: kind=text has no task.args",
    "task=squad_v1 +task.args.nosuch=3": "task.args.nosuch=3: kind=span has only unanswerable, he",
    "task=squad_v1 +task.args.stride=x": "task.args.stride=x: must be a valid integer",
    "task=squad_v1 +task.args.stride=1.5": "task.args.stride=1.5: must be a valid integer",
    "task=squad_v2 task.args.unanswerable=2": "task.args.unanswerable=2: must be a valid boolean",
    "task=squad_v1 +task.args.stride=-1": "task.args.stride=-1: must be 0 or more",
    "task=squad_v1 +task.args.max_question=0": "task.args.max_question=0: must be 1 or more",
    "task=squad_v1 +task.args.max_answer=0": "task.args.max_answer=0: must be 1 or more",
    "task=squad_v2 task.args.held_out=1": "task.args.held_out=1.0: must be at least 0 and below 1",
    "task=squad_v1 +task.args.held_out=0.5": "task.args.held_out=0.5: chooses a no-answer thresho",
    "task=squad_v1 train.max_length=150": "train.max_length=150: must be 197 or more: question, ",
    "task.name=other": "task=other: data=toy has only cola, mnli",
    "data.source=nosuch": "data.source=nosuch: must be one of hub, local, toy",
    "data.root=x": "data.root=x: data=toy does not read it",
    "data.skip_bad=true": "data.skip_bad=True: data=toy does not read it",
    "data=hub data.skip_bad=true": "data.skip_bad=True: data=hub does not read it",
    "data=local data.root=x data.toy_train=100": "data.toy_train=100: data=local does not read it",
    "data=hub data.toy_validation=9": "data.toy_validation=9: data=hub does not read it",
    "data=hub data.seed=1": "data.seed=1: nothing is generated or drawn at random from this data",
    "task=squad_v1 data=local data.root=x data.seed=1": "data.seed=1: nothing is generated",
}


@pytest.mark.parametrize("words", every(4, REFUSED))
def test_a_wrong_setting_gives_a_one_line_error(words):
    with pytest.raises(UserError) as caught:
        compose(words.split())
    assert str(caught.value).startswith(REFUSED[words]) and "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", dataclasses.fields(LocalLayout), ids=lambda entry: entry.name)
def test_a_layout_of_files_changes_the_rows_of_a_span_task_or_is_refused(tmp_path, entry):
    spec = compose(["task=squad_v1", "data=local", f"data.root={tmp_path}"])
    question = {"id": "1", "question": "q", "answers": [{"text": "a", "answer_start": 0}]}
    articles = [{"title": "t", "paragraphs": [{"context": "a b", "qas": [question]}]}]
    (tmp_path / spec.task.local.files["train"]).write_text(json.dumps({"data": articles}))

    def outcome() -> list | str:
        try:
            return data.load_split(make_task(validate(spec).task), spec.data, "train").rows
        except UserError as error:
            return str(error)

    before = outcome()
    assert len(before) == 1
    other = {str: "x", list: ["x"], dict: {"train": "x"}}
    setattr(spec.task.local, entry.name, other[type(getattr(LocalLayout(), entry.name))])
    assert outcome() != before


def test_an_optional_split_of_a_span_task_has_metrics_of_its_own():
    spec = compose(["task=squad_v1", "+task.optional.more=[exact_match]"])
    rows = [{"answers": {"text": ["a"]}}]
    for split, first in (("validation", "f1"), ("more", "exact_match")):
        scores = make_task(spec.task).score([Answer("a", 0.0, [])], rows, split)
        assert next(iter(scores)) == first


@pytest.mark.parametrize(
    "words",
    [
        ["data.seed=1"],
        ["data=hub", "data.seed=1", "data.train_rows=10"],
        [*LOCAL, "data.seed=1", "data.validation_rows=10", "data.skip_bad=true"],
        ["task=squad_v2", *LOCAL, "data.seed=1"],  # draws the held-out articles
    ],
)
def test_a_setting_that_has_an_effect_is_accepted(words):
    assert compose(words)


def test_the_articles_head_is_refused_for_targets_beyond_its_range():
    assert compose(["task=stsb", "head=article"])
    with pytest.raises(
        UserError, match=r"^head=article: gives values in .*\[0.0, 5.0\]; this task"
    ):
        compose(["task=stsb", "head=article", "task.value_range=[0,100]"])


def test_checks_load_neither_torch_nor_data():
    code = """
import sys
from lora_bench.data import check_source
from lora_bench.presets import task_presets
from lora_bench.spec import DataSpec, Spec, TrainSpec
from lora_bench.tasks import check_task
for task in task_presets().values():
    for source in ("toy", "hub"):
        train = TrainSpec(epochs=1, batch_size=1, lr=1.0, max_length=384)
        spec = Spec(task=task, data=DataSpec(source=source), train=train)
        check_task(spec), check_source(spec)
        before = dict(task.args)  # a second check changes nothing
        check_task(spec)
        assert before == task.args
heavy = {"torch", "transformers", "sklearn", "scipy", "pandas", "datasets"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_args_of_a_kind_are_complete_and_enter_the_identity():
    given, written = (compose(["task=squad_v1", *more]) for more in ([], ["+task.args.stride=128"]))
    assert given.task.args == written.task.args == vars(SpanArgs())
    assert given.where() == written.where()
    other = compose(["task=squad_v1", "+task.args.stride=64"])
    assert other.where() != given.where() and other.where()["task.args.stride"] == 64
    assert compose(["task=cola"]).task.args == {}


def test_helpers_beside_the_kinds_are_no_kinds():
    assert set(tasks.kinds()) == {"span", "text"}
    with pytest.raises(SpecError, match="task.kind=metrics: must be one of span, text"):
        make_task(TaskSpec(name="x", kind="metrics"))


@pytest.mark.parametrize("name", task_presets())
def test_every_task_has_a_head_and_a_counterpart_in_transformers(name):
    task = make_task(compose([f"task={name}"]).task)
    for style in ("standard", "article"):
        head = task.make_head(style, 16, 0.1)
        last = [p for n, p in head.named_parameters() if n.endswith("weight")][-1]
        assert last.shape == (task.outputs(style), 16)
    assert stock_of(task.spec) is not None


def test_a_kind_without_a_counterpart_in_transformers_says_so(monkeypatch):
    monkeypatch.setattr(tasks, "kinds", lambda: {"text": Task})
    with pytest.raises(AdapterError, match="task.kind=text: transformers has no model for such"):
        stock_of(TaskSpec(name="x"))


def test_a_kind_without_generator_reader_or_repository_says_so(tmp_path):
    task = Task(TaskSpec(name="x", labels=["a", "b"]))
    toy = compose([]).data
    with pytest.raises(SpecError, match="data.source=toy: task=x has no generated data"):
        data.load(task, toy)
    with pytest.raises(SpecError, match="data.source=local: kind=text has no reader of files"):
        task.read(tmp_path, "train", False)
    task.spec.hub = HubLayout()
    with pytest.raises(data.DataError, match="task=x: conf/task names no repository on the hub"):
        data.load_split(task, compose(["data=hub"]).data, "train")


def stored(task: Task, predictions, rows) -> pd.DataFrame:
    table = task.stored(predictions, rows)
    assert len(table) == len(rows) and {"prediction", "reference"} <= set(table.columns)
    json.dumps(table.to_dict("list"))
    return table


def test_what_is_stored_of_each_row(tmp_path):
    label = make_task(compose(["task=rte"]).task)
    table = stored(label, np.array([0, 1]), [{"label": 1}, {"label": 1}])
    assert table.prediction.tolist() == ["entailment", "not_entailment"]
    assert table.reference.tolist() == ["not_entailment"] * 2
    value = make_task(compose(["task=stsb"]).task)
    table = stored(value, np.array([0.5], dtype=np.float32), [{"label": 2.25}])
    assert table.prediction.tolist() == [0.5] and table.reference.tolist() == [2.25]
    span = make_task(compose(["task=squad_v2"]).task)
    rows = [{"answers": {"text": ["a", "b"]}}, {"answers": {"text": []}}]
    table = stored(span, [Answer("a", -1.0, []), Answer("c", 2.5, [])], rows)
    table.to_parquet(tmp_path / "table.parquet")
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert table.prediction.tolist() == ["a", "c"] and table.null_odds.tolist() == [-1.0, 2.5]
    assert [list(texts) for texts in table.reference] == [["a", "b"], []]


def test_only_span_with_unanswerable_questions_has_a_threshold():
    rows = [{"answers": {"text": ["a"]}}, {"answers": {"text": []}}]
    answers = [Answer("a", -1.0, []), Answer("c", 2.5, [])]
    assert make_task(compose(["task=cola"]).task).tune(np.array([0, 1]), rows) is None
    assert make_task(compose(["task=squad_v1"]).task).tune(answers, rows) is None
    assert make_task(compose(["task=squad_v2"]).task).tune(answers, rows) == -1.0


def test_the_first_metric_comes_first():
    rows = [{"answers": {"text": ["a b"]}}]
    task = make_task(compose(["task=squad_v1", "task.metrics=[exact_match,f1]"]).task)
    assert list(task.score([Answer("a", 0.0, [])], rows)) == ["exact_match", "f1"]
