"""The names that ``lora_bench`` exports: typed, lazy, and usable with transformers models."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
)

import lora_bench
from lora_bench import (
    LoraLinear,
    adapter_parameters,
    adapters_off,
    inject_lora,
    make_spec,
    record,
    run_spec,
)
from lora_bench.checks import TARGETS
from lora_bench.errors import UserError
from lora_bench.model.encoder import tiny_config
from lora_bench.tasks import make_task

SMALL = ["model=tiny", "data.toy_train=48", "data.toy_validation=24", "train.epochs=1"]

ROOT = Path(__file__).parent.parent


def test_a_run_from_python(tmp_path):
    words = [*SMALL, "task=stsb", "progress=false", f"cache_dir={tmp_path}/cache"]
    spec = make_spec(*words, f"out_dir={tmp_path}/out")
    done = run_spec(spec)
    assert done.status == "ok" and done == run_spec(spec)  # the second one is the record on disk
    assert record.read_all(tmp_path / "out")[0] == [done]
    assert list(lora_bench.load_records(tmp_path / "out").key) == [done.key]
    with pytest.raises(UserError, match="method.rank=-1: must be 1 or more"):
        make_spec(*words, "method.rank=-1")
    spec.method.rank = -1
    with pytest.raises(UserError, match="method.rank=-1: must be 1 or more"):
        run_spec(spec)


def test_importing_the_package_loads_nothing_of_it():
    code = "import sys, lora_bench; print([m for m in sys.modules if 'lora_bench.' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_type_checkers_see_the_names_that_are_exported():
    tree = ast.parse(Path(lora_bench.__file__).read_text())
    (hints,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {name.asname: f"{node.module}" for node in hints.body for name in node.names}
    assert typed == lora_bench._HOME


@pytest.mark.slow
def test_a_program_on_the_package_is_type_checked(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("from lora_bench import make_spec, run_spec\nrun_spec(make_spec(1))\n")
    # with the project's cache, or mypy would read torch first
    command = [sys.executable, "-m", "mypy", str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert 'Argument 1 to "make_spec" has incompatible type "int"' in done.stdout


def bert_config() -> BertConfig:
    shape = tiny_config().to_dict()
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    return BertConfig(**{name: shape[name] for name in (*names, "intermediate_size")})


STOCK = [
    (RobertaModel, tiny_config),
    (RobertaForSequenceClassification, tiny_config),
    (RobertaForTokenClassification, tiny_config),
    (BertModel, bert_config),
    (BertForSequenceClassification, bert_config),
    (BertForQuestionAnswering, bert_config),
]


@pytest.mark.parametrize(("kind", "config"), STOCK)
@pytest.mark.parametrize("targets", [("query", "value"), tuple(TARGETS)])
def test_a_stock_model_is_adapted_in_place(kind, config, targets):
    """The output does not change, only LoRA is trained, and a merged model computes the same."""
    model = kind(config()).eval()
    batch = {"input_ids": torch.randint(5, 200, (3, 9))}
    batch["attention_mask"] = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 4, 6)])
    with torch.no_grad():
        before = model(**batch)[0]
    names = inject_lora(model, targets=targets, rank=3, alpha=6.0)
    assert len(names) == 2 * len(targets)
    assert all(isinstance(model.get_submodule(name), LoraLinear) for name in names)
    model.requires_grad_(False)
    adapter = adapter_parameters(model)
    assert len(adapter) == 2 * len(names)
    for parameter in adapter.values():
        parameter.requires_grad_(True)
    output = model(**batch)[0]
    assert torch.equal(output, before)
    output.square().sum().backward()
    ends = [name for name in names if "layer.1" in name and "key" not in name]
    assert all(model.get_parameter(f"{name}.lora_b").grad.any() for name in ends)
    with torch.no_grad():
        for name in names:
            torch.nn.init.normal_(model.get_parameter(f"{name}.lora_b"))
        changed = model(**batch)[0]
        with adapters_off(model):
            assert torch.equal(model(**batch)[0], before)
        for name in names:
            model.get_submodule(name).merge()
        error, size = (model(**batch)[0] - changed).abs().max(), (changed - before).abs().max()
        assert error < 1e-3 * size


def test_a_model_without_an_encoder_is_refused():
    with pytest.raises(ValueError, match="Linear: must have one RobertaModel or BertModel, has 0"):
        inject_lora(torch.nn.Linear(2, 2), rank=1, alpha=1.0)
    two = torch.nn.ModuleList([RobertaModel(tiny_config()), BertModel(bert_config())])
    with pytest.raises(ValueError, match="ModuleList: must have one RobertaModel or .* has 2"):
        inject_lora(two, rank=1, alpha=1.0)


METRIC = """
import datasets
import evaluate


class {name}(evaluate.Metric):
    def _info(self):
        features = dict.fromkeys(("predictions", "references"), datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="", features=datasets.Features(features)
        )

    def _compute(self, predictions, references):
        same = sum(p == r for p, r in zip(predictions, references)) / len(references)
        return {result}
"""


def write_metric(folder: Path, name: str, result: str) -> Path:
    folder = folder / name
    folder.mkdir()
    code = METRIC.format(name=name.title(), result=result)
    (folder / f"{name}.py").write_text(code)
    return folder


def scored(tmp_path: Path, *words: str) -> record.Record:
    folders = [f"out_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache", "progress=false"]
    return run_spec(make_spec(*SMALL, *folders, *words))


def test_a_task_may_name_a_metric_of_the_library_evaluate(tmp_path, monkeypatch):
    """Its first metric is ours, the second the same from a folder: they must agree."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    one = write_metric(tmp_path, "agreement", '{"share": same}')
    done = scored(tmp_path, "task=sst2", f"task.metrics=[accuracy,'evaluate:{one}']")
    assert list(done.last["scores"]) == ["accuracy", "agreement"]
    assert done.last["scores"]["agreement"] == pytest.approx(done.last["scores"]["accuracy"])
    assert done.data["validation"]["chance"]["agreement"] > 0.3
    two = write_metric(tmp_path, "both", '{"same": same, "other": 1 - same}')
    chosen = scored(tmp_path, "task=sst2", f"task.metrics=['evaluate:{two}#other',accuracy]")
    scores = chosen.last["scores"]
    assert scores["other"] == pytest.approx(1 - scores["accuracy"])
    with pytest.raises(UserError, match=rf"several values; write one of evaluate:{two}#same, "):
        scored(tmp_path, "task=sst2", f"task.metrics=['evaluate:{two}']")


def test_a_metric_that_is_undefined_for_equal_predictions_has_no_chance_level(tmp_path):
    """As Pearson's correlation has none: it must not end the run."""
    folder = write_metric(tmp_path, "spread", '{"spread": len(set(predictions)) - 1 or 1e999}')
    task = make_task(make_spec("task=sst2", f"task.metrics=[accuracy,'evaluate:{folder}']").task)
    rows = [{"sentence": word, "label": label} for word, label in (("a", 0), ("b", 1))]
    assert task.reference_points(rows, rows, "validation")["chance"] is None
    assert task.score(np.array([0, 1]), rows) == {"accuracy": 1.0, "spread": 1.0}


@pytest.mark.parametrize(
    ("result", "reason"),
    [('{"odd": float("nan")}', "odd is nan, must be a finite number"), ("1 / 0", "division by")],
)
def test_a_metric_without_a_number_fails_the_run_in_one_line(tmp_path, result, reason):
    folder = write_metric(tmp_path, "odd", result)
    with pytest.raises(UserError, match=reason):
        scored(tmp_path, f"task.metrics=['evaluate:{folder}']")
    ((failed,), _) = record.read_all(tmp_path / "out")
    assert failed.status == "failed" and reason in failed.error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["task.metrics=['evaluate:/nowhere']"], "there is no file /nowhere/nowhere.py"),
        (["task.metrics=['evaluate:']"], "must be evaluate:<id or folder>"),
        (["task.metrics=[accuracy,'evaluate:accuracy']"], "must not contain duplicates"),
        (["task=squad_v1", "task.metrics=['evaluate:squad']"], "must be among f1, exact_match"),
        (["task.metrics=[nosuch]"], "accuracy, f1, matthews, evaluate:<id or folder>"),
    ],
)
def test_a_wrong_name_of_a_metric_is_refused(words, reason):
    with pytest.raises(UserError, match=reason):
        make_spec(*SMALL, *words)
