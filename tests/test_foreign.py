"""Adapters of other projects: what is imported computes the same, anything else is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from lora_bench import checkpoint
from lora_bench.checkpoint import peft_config
from lora_bench.checkpoint.__main__ import main
from lora_bench.checkpoint.peft_config import NO_EFFECT, OFF, LoraFacts
from lora_bench.checkpoint.tensors import check_numbers, finite, read_safetensors

from .helpers import every, our_outputs, stock_outputs

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # transformers', of what PEFT calls
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
]


@pytest.fixture
def theirs(base, tmp_path):
    """Train a PEFT folder: ``theirs(r=4, ...)`` returns it and the outputs of PEFT's model."""

    def make(**settings):
        bare = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
        given = {"r": 4, "target_modules": ["query", "value"], "task_type": "SEQ_CLS"} | settings
        model = peft.get_peft_model(bare, peft.LoraConfig(**given))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(tmp_path / "theirs")
        return tmp_path / "theirs", stock_outputs(model, torch.zeros(3))

    return make


def convert(folder: Path, *more: str, origin: str = "peft", task: str = "cola") -> Path:
    out = folder.parent / "back"
    shutil.rmtree(out, ignore_errors=True)
    main(["convert", str(folder), "--from", origin, "--task", task, *more, "--out", str(out)])
    return out


def refused(folder: Path, *more: str, **options) -> str:
    """The one line of the refusal; nothing may be left."""
    with pytest.raises(SystemExit) as caught:
        convert(folder, *more, **options)
    message = str(caught.value)
    assert message.startswith("error: ") and "\n" not in message and len(message) < 700
    assert not list(folder.parent.glob("*back*"))
    return message


def configure(folder: Path, **changes) -> None:
    path = folder / peft_config.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SAME = {
    "kaiming": {},
    "no init": {"init_lora_weights": False},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "scaling": {"lora_alpha": 3, "use_rslora": True, "lora_dropout": 0.3},
    "lora_only": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "one layer": {"layers_to_transform": [1], "layers_pattern": "layer"},
    "regular expression": {"target_modules": r".*\.1\.attention\.self\.(query|key)"},
    "all linear": {"target_modules": "all-linear", "exclude_modules": ["value"]},
    "LayerNorms": {"modules_to_save": ["classifier", "LayerNorm"]},
    "embeddings": {
        "modules_to_save": [
            "classifier",
            "word_embeddings",
            "position_embeddings",
            "token_type_embeddings",
        ]
    },
    "patterns without effect": {"rank_pattern": {"query": 4}, "alpha_pattern": {"value": 8}},
    "whole name": {  # layers_to_transform applies to suffixes only
        "target_modules": ["roberta.encoder.layer.0.attention.self.value", "query", "value"],
        "exclude_modules": ["0.attention.self.query", "1.attention.self.query"],
        "layers_to_transform": [1],
    },
}


@pytest.mark.parametrize("name", every(2, SAME))
def test_what_is_imported_computes_what_peft_computes(theirs, name):
    folder, expected = theirs(**SAME[name])
    torch.testing.assert_close(our_outputs(convert(folder)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_an_initialization_that_changes_the_base_model_is_refused(theirs, init):
    folder, _ = theirs(init_lora_weights=init)
    assert f"init_lora_weights={init}: changes the base model" in refused(folder)


def test_layers_with_different_modules_are_refused(theirs):
    modules = ["layer.0.attention.self.query", "layer.1.attention.self.value"]
    folder, _ = theirs(target_modules=modules)
    assert "adapts other modules in some layers; must be the same in each" in refused(folder)


def test_a_folder_around_a_named_adapter_is_refused_with_its_name(theirs):
    folder, _ = theirs()
    folder.rename(folder.parent / "named")
    folder.mkdir()
    (folder.parent / "named").rename(folder / "named")
    assert "no adapter_config.json there; one is in named" in refused(folder)


def test_every_key_of_peft_is_understood_or_refused(theirs):
    known = {entry.name for entry in dataclasses.fields(LoraFacts)} | OFF | NO_EFFECT
    config = json.loads((theirs()[0] / peft_config.CONFIG).read_text())
    assert config.keys() <= known


def test_what_our_layer_lacks_is_refused(theirs):
    folder, _ = theirs()
    good = (folder / peft_config.CONFIG).read_text()
    for key in sorted(OFF):
        configure(folder, **{key: {"query": 2}})
        assert f"uses {key}=" in refused(folder)
        (folder / peft_config.CONFIG).write_text(good)


CONTRADICTIONS = [
    ({"new_key": False}, "new_key=false: unknown"),
    ({"new_key": 3}, "new_key=3: unknown"),
    ({"init_lora_weights": "eva"}, "init_lora_weights=eva"),
    ({"init_lora_weights": "loftq"}, "init_lora_weights=loftq"),
    ({"r": 8}, "r=8: the matrices have rank 4"),
    ({"r": "4"}, 'r="4": must be a valid integer'),
    ({"lora_alpha": None}, "lora_alpha=null"),
    (
        {"modules_to_save": ["classifier", "classifier.dense"]},
        "classifier.dense is inside another saved module",
    ),
    ({"lora_alpha": -1}, "adapter_config.json: lora_alpha=-1.0: must be a finite number above 0"),
    ({"lora_dropout": 2}, "adapter_config.json: lora_dropout=2.0: must be at least 0"),
    ({"target_modules": ["query"]}, "value: the configuration does not name them"),
    ({"target_modules": ["query", "key", "value"]}, "the file has no LoRA matrices"),
    ({"target_modules": "(("}, 'target_modules="((": missing )'),
    ({"target_modules": None}, "target_modules=null"),
    ({"layers_to_transform": [0]}, "the configuration does not name them"),
    ({"layers_pattern": "h"}, "layers_pattern=h: must be layer"),
    ({"bias": "all"}, "missing ['encoder."),
    ({"bias": "lora_only"}, "missing ['encoder."),
    ({"bias": "some"}, 'bias="some"'),
    ({"modules_to_save": None}, "do not explain classifier."),
    ({"modules_to_save": ["classifier", "0"]}, "modules_to_save: the file has no weights of '0'"),
    ({"task_type": "QUESTION_ANS"}, "task_type=QUESTION_ANS: task=cola is SEQ_CLS"),
    ({"base_model_name_or_path": None}, "give --base"),
    ({"base_model_name_or_path": "/nowhere"}, "model.source=/nowhere: no such folder"),
]


def test_a_configuration_that_contradicts_the_tensors_is_refused(theirs):
    folder, _ = theirs()
    good = (folder / peft_config.CONFIG).read_text()
    for change, message in CONTRADICTIONS:
        configure(folder, **change)
        assert message in refused(folder)
        (folder / peft_config.CONFIG).write_text(good)


def test_the_keys_of_early_versions_of_peft_are_understood(theirs):
    folder, expected = theirs()
    configure(folder, enable_lora=None, merge_weights=False)
    configure(folder, key_of_a_later_version=None)  # which is not set
    torch.testing.assert_close(our_outputs(convert(folder)), expected, atol=1e-5, rtol=0)


def test_biases_that_the_configuration_denies_are_refused(theirs):
    folder, _ = theirs(bias="all")
    configure(folder, bias="none")
    assert "bias=none and modules_to_save=['classifier', 'score'] do not explain" in refused(folder)
    configure(folder, bias="lora_only")
    assert "unknown ['encoder." in refused(folder)


def test_a_folder_with_a_pickled_file_alone_is_read_without_running_it(theirs):
    folder, expected = theirs()
    path = folder / "adapter_model.safetensors"
    torch.save(load_file(path), folder / "adapter_model.bin")
    path.unlink()
    torch.testing.assert_close(our_outputs(convert(folder)), expected, atol=1e-5, rtol=0)
    (folder / "adapter_model.bin").write_bytes(b"no pickle")
    assert "adapter_model.bin: is damaged" in refused(folder)
    (folder / "adapter_model.bin").unlink()
    assert "no adapter_model.safetensors or adapter_model.bin there" in refused(folder)


def test_tensors_that_share_memory_are_read(theirs):
    folder, _ = theirs()
    path = folder / "adapter_model.safetensors"
    same = torch.full((32, 4), 0.1)
    state = {name: same if "lora_B" in name else t for name, t in load_file(path).items()}
    torch.save(state, folder / "adapter_model.bin")
    path.unlink()
    back = load_file(convert(folder) / checkpoint.WEIGHTS)
    matrices = [tensor for name, tensor in back.items() if name.endswith("lora_b")]
    assert len(matrices) == 4 and all(tensor.equal(same) for tensor in matrices)


def test_numbers_that_are_none_are_said(theirs):
    folder, _ = theirs()
    path = folder / "adapter_model.safetensors"
    good = load_file(path)
    name = next(name for name in good if "lora_B" in name)
    for value, message in (
        (torch.full_like(good[name], torch.nan), "NaN or infinite numbers in"),
        (good[name].to(torch.int64), "is int64, strided; must be dense floating-point numbers"),
        (good[name][:0], "is empty"),
    ):
        save_file({**good, name: value}, path)
        assert message in refused(folder) and name in refused(folder)


def test_lora_in_the_head_is_said(theirs):
    folder, _ = theirs(target_modules=["query", "dense"], task_type=None,
                       modules_to_save=["classifier.out_proj"])  # fmt: skip
    assert "adapts classifier.dense; must be linear layers of the encoder" in refused(folder)


def test_tensors_without_a_number_for_each_element_are_refused(theirs):
    """A file of a few bytes would fill the memory."""
    folder, _ = theirs()
    path = folder / "adapter_model.safetensors"
    good = load_file(path)
    path.unlink()
    name = next(name for name in good if "lora_B" in name)
    for value in (good[name].to("meta"), torch.zeros(1).expand(10**7, 10**7)):
        torch.save({**good, name: value}, folder / "adapter_model.bin")
        message = refused(folder)
        assert f"{name} is float32, strided; must be dense floating-point numbers" in message


def test_a_type_of_numbers_without_conversion_is_reported(theirs):
    folder, _ = theirs()
    path = folder / "adapter_model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    name = next(name for name in header if "lora_A" in name)
    first, last = header[name]["data_offsets"]
    header[name] |= {"dtype": "F4", "shape": [4, 2 * (last - first) // 4]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    message = refused(folder)
    assert f"{name} is float4_e2m1fn_x2, strided; must be dense floating-point numbers" in message


@pytest.mark.parametrize(
    "kind", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_narrow_and_wide_numbers_are_read(tmp_path, kind):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2, 2).to(kind)}, path)
    check_numbers(path, state := read_safetensors(path))
    assert finite(state["a"]) and state["a"].dtype == kind


def test_a_base_model_in_a_folder_of_any_name_is_read(theirs, base, monkeypatch):
    folder, expected = theirs()
    odd = base.rename(base.with_name("n\u00e4me (v2)" + "x" * 70))
    configure(folder, base_model_name_or_path=str(odd))
    found = checkpoint.spec_of(convert(folder)).model
    assert found.source == str(odd) and found.name == ("n_me__v2_" + "x" * 70)[:64]
    monkeypatch.chdir(odd)
    torch.testing.assert_close(
        our_outputs(convert(folder, "--base", ".")), expected, atol=1e-5, rtol=0
    )


def test_what_was_left_out_is_reported(theirs, capsys):
    folder, _ = theirs()
    path = folder / "adapter_model.safetensors"
    name = "base_model.model.classifier.original_module.dense.bias"
    save_file({**load_file(path), name: torch.zeros(32)}, path)
    convert(folder)
    assert f"left out, because no output depends on them: {name}\n" in capsys.readouterr().out


@pytest.fixture
def article(adapter, base, tmp_path):
    """Write the article's file of a random adapter."""

    def make() -> Path:
        folder = adapter("task=cola", "head=article", "method.alpha=8", "method.biases=all")
        state = {"model.pooler.dense.bias": torch.zeros(32)}
        for name, tensor in load_file(folder / checkpoint.WEIGHTS).items():
            new = name.replace("encoder.", "model.", 1).replace("head.", "finetune_head_")
            for projection in ("query", "value"):
                for factor in "ab":
                    matrix = f"lora_{projection}_matrix_{factor.upper()}"
                    new = new.replace(f"{projection}.lora_{factor}", matrix)
            state[new] = tensor
        known = {"model_id": str(base), "task_type": "glue", "lora_rank": 8, "num_classes": 2}
        torch.save(state | known, tmp_path / "article.pth")
        return tmp_path / "article.pth"

    return make


ARTICLE_FACTS = [
    ({"lora_rank": 4}, "lora_rank=4: the matrices have rank 8"),
    ({"lora_rank": "8"}, "lora_rank='8': must be 1 or more"),
    ({"task_type": "squad_v1"}, "task_type='squad_v1': must be glue for task=cola"),
    ({"task_type": None}, "task_type=None: must be glue"),
    ({"num_classes": 3}, "num_classes=3: must be 2 for task=cola"),
    ({"num_classes": None}, "num_classes=None: must be 2"),
    ({"num_classes": torch.zeros(2)}, "must be 2 for task=cola"),
    ({"model_id": 3}, "model_id=3: must name the base model"),
]


def test_the_facts_of_an_article_file_must_agree_with_it(article):
    path = article()
    good = torch.load(path, weights_only=True)
    for facts, message in ARTICLE_FACTS:
        torch.save(good | facts, path)
        assert message in refused(path, origin="article")


def test_the_scaling_of_an_article_file_is_one_and_options_are_used_or_refused(
    article, adapter, base, tmp_path, capsys
):
    path = article()
    expected = our_outputs(tmp_path / "adapter")
    assert torch.equal(our_outputs(convert(path, origin="article")), expected)
    left = "left out, because no output depends on them: model.pooler.dense.bias\n"
    assert left in capsys.readouterr().out
    assert "--alpha 16.0: --from article does not use it" in refused(
        path, "--alpha", "16", origin="article"
    )
    moved = base.rename(tmp_path / "moved")
    assert "no such folder" in refused(path, origin="article")
    back = convert(path, "--base", str(moved), origin="article")
    assert torch.equal(our_outputs(back), expected)
    assert checkpoint.spec_of(back).model.source == str(moved)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "peft", "--task", "cola", "--alpha", "8"], "--alpha 8.0: --from peft does not"),
        (["--to", "peft", "--task", "cola"], "--task cola: --from ours does not use it"),
        (["--to", "peft", "--base", "x"], "--base x: --from ours does not use it"),
        (
            ["--from", "loralib", "--task", "cola", "--base", "x", "--alpha", "nan"],
            "--alpha nan: must be a finite number above 0",
        ),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(["convert", "source", *arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["merge"], ["convert", "--to", "peft"]])
def test_what_would_compute_something_else_is_not_written(adapter, tmp_path, monkeypatch, command):
    """The written files are loaded again: here one number of them changes on the way."""
    from transformers import PreTrainedModel

    folder, out = adapter("task=cola"), tmp_path / "out"
    for owner in (PreTrainedModel, peft.PeftModel):
        save = owner.save_pretrained

        def damaged(self, target, *args, save=save, **kwargs):
            save(self, target, *args, **kwargs)
            for path in Path(target).glob("*.safetensors"):
                state = load_file(path)
                name = next(name for name in state if name.endswith("out_proj.bias"))
                save_file({**state, name: state[name] + 1}, path, {"format": "pt"})

        monkeypatch.setattr(owner, "save_pretrained", damaged)
    with pytest.raises(SystemExit, match="not written: loaded again it computes something else"):
        main([command[0], str(folder), *command[1:], "--out", str(out)])
    assert not list(tmp_path.glob("*out*"))


def test_one_changed_byte_of_our_own_weights_is_reported(adapter, tmp_path):
    path = adapter("task=cola") / checkpoint.WEIGHTS
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))  # the last digit of one number
    for command in (["inspect"], ["merge", "--out", str(tmp_path / "out")]):
        with pytest.raises(SystemExit, match="is damaged or was changed: its SHA-256 is not"):
            main([command[0], str(path.parent), *command[1:]])


FACTS = [
    ({"format": "2"}, "format is '2'; must be a number from 1"),
    ({"format": 0}, "format is 0"),
    ({"more": 1}, "more: Unexpected keyword argument"),
    ({"seed": "0"}, "seed: must be a valid integer"),
    ({"seed": -1}, "seed=-1: must be 0 or more"),
    ({"head": "other"}, "head=other: must be one of standard, article"),
    ({"task": []}, "task: must be an object"),
    ({"task.labels": 3}, "task.labels: must be a valid"),
    ({"task.kind": "other"}, "task.kind=other: must be one of"),
    ({"base_model.source": 3}, "base_model.source: must be a valid string"),
    ({"method.more": 3}, "unexpected keyword argument 'more'"),
    ({"method.rank": 10**12}, "method.rank=1000000000000: adapter.safetensors has no such"),
    ({"method.rank": None}, "method.rank=None: method=lora needs it"),
    ({"method.name": "other"}, "method.name=other: must be one of"),
    ({"method.layers": [9]}, "this encoder has layers 0 to 1"),
    ({"method.targets": "query"}, "method.targets: must be a valid"),
    ({"method.alpha": "x"}, "method.alpha: must be a valid number"),
    ({"method.args": {"a": 1}}, "method.args.a=1: method=lora takes no args"),
]


def test_garbled_facts_of_our_own_adapter_give_a_one_line_error(adapter, tmp_path):
    path = adapter("task=cola") / checkpoint.FACTS
    good = path.read_text()
    for change, message in FACTS:
        facts = json.loads(good)
        for place, value in change.items():
            section, _, name = place.rpartition(".")
            (facts[section] if section else facts)[name] = value
        path.write_text(json.dumps(facts))
        with pytest.raises(SystemExit) as caught:
            main(["merge", str(path.parent), "--out", str(tmp_path / "out")])
        assert message in str(caught.value) and "adapter.json" in str(caught.value)
        assert "\n" not in str(caught.value)
