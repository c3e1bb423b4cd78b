"""Adapters to PEFT and back, to plain transformers, from loralib and from the article."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from lora_bench import checkpoint
from lora_bench.checkpoint.__main__ import main
from lora_bench.checkpoint.restore import load_model
from lora_bench.errors import SpecError
from lora_bench.methods.peft import DRIVEN, NOISE, TRANSLATED, suited_types
from lora_bench.model.encoder import load_tokenizer
from lora_bench.training.prepared import prepare
from lora_bench.training.run import run

from .conftest import composed
from .helpers import (
    ROW_LENGTHS,
    every,
    mostly_slow,
    our_outputs,
    random_batch,
    stock_class,
    stock_outputs,
)
from .test_peft import TINY_ARGS
from .test_spec import PEFT

# transformers' own, about what PEFT calls, and PEFT's about BOFT and LN tuning
peft_noise = pytest.mark.filterwarnings(
    "ignore::FutureWarning", *[f"ignore:{start}" for start in NOISE]
)


POLICIES = {
    "plain": [],
    "article's": ["method.biases=all", "method.layer_norms=true"],
    "embeddings": ["method.embeddings=true"],
    "adapted biases": ["method.biases=adapted", "method.rank_stabilized=true", "method.layers=[1]"],
}


@peft_noise
@pytest.mark.parametrize("task", every(2, ["mnli", "stsb", "squad_v1"]))
@pytest.mark.parametrize("method", mostly_slow(["lora", "lora_linear"], ["lora_linear"]))
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_to_peft_and_back(adapter, base, tmp_path, task, method, policy):
    folder = adapter(f"task={task}", f"method={method}", *policy)
    before = our_outputs(folder)
    check_export(folder, base, tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    main(
        [
            "convert",
            str(tmp_path / "peft"),
            "--from",
            "peft",
            "--task",
            task,
            "--out",
            str(tmp_path / "back"),
        ]
    )
    assert torch.equal(our_outputs(tmp_path / "back"), before)
    back = checkpoint.spec_of(tmp_path / "back").method
    there = checkpoint.spec_of(folder).method
    for name in ("rank", "alpha", "rank_stabilized", "targets", "layer_norms"):
        assert getattr(back, name) == getattr(there, name)


# words that a type of PEFT needs on the tiny encoder, or to have an effect
TYPE_WORDS = {
    "C3A": ["+method.args.block_size=8"],
    "IA3": [
        "method.targets=[]",
        "+method.args.target_modules=[key,intermediate.dense]",
        "+method.args.feedforward_modules=[intermediate.dense]",
    ],
    "LORA": ["method.alpha=3"],
    "ROAD": ["+method.args.group_size=8"],
    "SHIRA": ["+method.args.r=4"],
    "VBLORA": ["+method.args.num_vectors=16", "+method.args.vector_length=8"],
    "WAVEFT": ["+method.args.n_frequency=20"],
}


def words_of_type(kind: str) -> list[str]:
    """Words for ``method=peft_lora`` with another type, without settings that it does not have."""
    read = TRANSLATED.get(kind, {})
    unset = [f"method.{name}=null" for name in ("rank", "alpha") if name not in read]
    return [f"method.peft_type={kind}", *unset, *TYPE_WORDS.get(kind, [])]


def check_export(folder: Path, base: Path, out: Path) -> None:
    """Convert to PEFT; PEFT's model, padded, must give the outputs of ours, packed."""
    peft = pytest.importorskip("peft")
    before = our_outputs(folder)
    main(["convert", str(folder), "--to", "peft", "--out", str(out)])
    bare = stock_class(before).from_pretrained(base, num_labels=before.shape[1])
    theirs = peft.PeftModel.from_pretrained(bare, out)
    torch.testing.assert_close(stock_outputs(theirs, before), before, atol=1e-5, rtol=0)


@peft_noise
@pytest.mark.parametrize("task", mostly_slow(["mnli", "squad_v1"], ["mnli"]))
@pytest.mark.parametrize("method", every(3, PEFT))
def test_what_pefts_layers_trained_goes_to_peft(adapter, base, tmp_path, method, task):
    folder = adapter(f"task={task}", f"method={method}", *TINY_ARGS.get(method, []))
    check_export(folder, base, tmp_path / "peft")


@peft_noise
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's, about FROD
@pytest.mark.parametrize("kind", every(8, sorted({*suited_types()} - {*DRIVEN})))
def test_every_type_of_peft_computes_the_same_packed_and_padded(adapter, base, tmp_path, kind):
    folder = adapter("task=mnli", "method=peft_lora", *words_of_type(kind))
    check_export(folder, base, tmp_path / "peft")


PEFT_WORDS = {
    "pattern": [
        "method.targets=[]",
        r"+method.args.target_modules='encoder\.layer\.[01]\.attention\.self\.(query|key)'",
        "+method.args.exclude_modules='.*1.attention.*key'",
    ],
    "anchored pattern": [
        "method.targets=[]",
        "+method.args.target_modules='^encoder.*(query|key)$'",
    ],
    "ranks and alphas by pattern, of which the first one counts": [
        "+method.args.alpha_pattern={query:2,layer.0.attention.self.query:640}",
        "+method.args.rank_pattern={layer.1.attention.self.value:2,value:3}",
    ],
    "names that the head has too": ["method.targets=[]", "+method.args.target_modules=[dense]"],
    "embedding layers": ["method.targets=[]", "+method.args.target_modules=[word_embeddings]"],
    "adapted biases": ["method.biases=adapted"],
    "all biases": ["method.biases=all", "method.layer_norms=true"],
    "trained embeddings": ["method.embeddings=true", "method.layers=[1]"],
}


@peft_noise
@pytest.mark.parametrize("words", PEFT_WORDS.values(), ids=PEFT_WORDS)
def test_settings_beside_pefts_layers_go_to_peft(adapter, base, tmp_path, words):
    check_export(adapter("task=mnli", "method=peft_lora", *words), base, tmp_path / "peft")


MERGED = [
    "lora", "lora_linear", "full", "bitfit", "relora", "peft_dora", "peft_ia3", "peft_adalora",
]  # fmt: skip


@pytest.mark.parametrize("task", every(2, ["mnli", "stsb", "squad_v1"]))
@pytest.mark.parametrize("method", mostly_slow(MERGED, ["lora", "full", "peft_dora"]))
def test_merged_it_is_a_plain_transformers_model(adapter, tmp_path, task, method):
    before = our_outputs(folder := adapter(f"task={task}", f"method={method}"))
    main(["merge", str(folder), "--out", str(tmp_path / "merged")])
    merged = stock_class(before).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(stock_outputs(merged, before), before, atol=1e-5, rtol=0)
    if task == "mnli":
        assert merged.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}


@peft_noise
@pytest.mark.parametrize("task", ["cola", "squad_v1"])
def test_token_types_reach_the_encoder_in_peft(adapter, tmp_path, task):
    """PEFT's model for question answering does not pass them on."""
    peft = pytest.importorskip("peft")
    bert = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(bert, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    load_tokenizer(composed("model=tiny").model).save_pretrained(tmp_path / "bert")
    folder = adapter(f"task={task}", model=f"model.source={tmp_path / 'bert'}")
    main(["convert", str(folder), "--to", "peft", "--out", str(tmp_path / "peft")])
    ids = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    types = (torch.arange(9) > 4).long().expand(2, 9)
    model, _, _ = load_model(folder)
    with torch.no_grad():
        before = model(input_ids=ids, token_type_ids=types)
        assert not torch.allclose(before, model(input_ids=ids), atol=1e-3)
        kind = "SequenceClassification" if task == "cola" else "QuestionAnswering"
        base = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
            tmp_path / "peft" / "base_model"
        )
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "peft").eval()
        out = theirs(input_ids=ids, token_type_ids=types, attention_mask=torch.ones_like(ids))
    found = out.logits if task == "cola" else torch.stack([out.start_logits, out.end_logits], -1)
    torch.testing.assert_close(found, before, atol=1e-5, rtol=0)


@peft_noise
@pytest.mark.parametrize("task", ["cola", "squad_v1"])
def test_a_base_with_the_head_of_another_task_is_merged_and_exported(adapter, base, tmp_path, task):
    config = json.loads((base / "config.json").read_text())
    labels = {
        "id2label": dict(enumerate("abc")),
        "label2id": dict(zip("abc", range(3), strict=True)),
    }
    called = {"return_dict": False, "output_attentions": True, "chunk_size_feed_forward": 4}
    (base / "config.json").write_text(json.dumps({**config, **labels, **called}))
    weights = load_file(base / "model.safetensors")
    weights = {f"roberta.{name.removeprefix('roberta.')}": w for name, w in weights.items()}
    weights["classifier.out_proj.weight"] = torch.zeros(3, 32)
    weights["classifier.out_proj.bias"] = torch.zeros(3)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    before = our_outputs(folder := adapter(f"task={task}"))
    main(["convert", str(folder), "--to", "peft", "--out", str(tmp_path / "peft")])
    main(["merge", str(folder), "--out", str(tmp_path / "merged")])
    merged = stock_class(before).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(stock_outputs(merged, before), before, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_an_export_keeps_the_revision_of_the_base_model(adapter, base, tmp_path):
    """The pinned revision is in the cache of the hub, without a main branch."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(base, tmp_path / "hub" / "models--someone--base" / "snapshots" / commit)
    folder = adapter("task=cola")
    facts = json.loads((folder / checkpoint.FACTS).read_text())
    facts["base_model"] = {"name": "base", "source": "someone/base", "revision": commit}
    (folder / checkpoint.FACTS).write_text(json.dumps(facts))
    out = tmp_path / "peft"
    words = ["convert", str(folder), "--to", "peft", "--out", str(out)]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lora_bench.checkpoint", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("someone/base", commit)


@peft_noise
@pytest.mark.slow
@pytest.mark.parametrize("method", ["peft_dora", "peft_ia3", "lora"])
def test_another_base_under_the_adapted_layers_is_noticed(adapter, base, tmp_path, method):
    folder = adapter("task=cola", f"method={method}")
    weights = load_file(base / "model.safetensors")
    changed = {n: 2 * w if "self.value.weight" in n else w for n, w in weights.items()}
    save_file(changed, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit, match="was trained on another base model"):
        main(["merge", str(folder), "--out", str(tmp_path / "merged")])


@pytest.mark.slow
@peft_noise
def test_a_bert_base_is_written_beside_the_peft_folder(adapter, tmp_path):
    peft = pytest.importorskip("peft")
    before = our_outputs(folder := adapter("task=mnli", model="model=minilm"))
    main(["convert", str(folder), "--to", "peft", "--out", str(tmp_path / "peft")])
    bare = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "peft" / "base_model", num_labels=3
    )
    theirs = peft.PeftModel.from_pretrained(bare, tmp_path / "peft").eval()
    batch = random_batch(ROW_LENGTHS, first_position=1)
    with torch.no_grad():
        logits = [
            theirs(input_ids=piece[None]).logits for piece in batch.input_ids.split(ROW_LENGTHS)
        ]
        before = load_model(folder)[0](batch)
    torch.testing.assert_close(torch.cat(logits), before, atol=1e-5, rtol=0)


@peft_noise
def test_the_base_beside_a_peft_folder_is_named_whatever_the_folder_is_called(
    adapter, tmp_path, monkeypatch
):
    peft = pytest.importorskip("peft")
    folder, out = adapter("task=cola", model="model=tiny"), tmp_path / 'n\u00e4me "quoted"'
    monkeypatch.chdir(tmp_path)
    main(["convert", str(folder), "--to", "peft", "--out", out.name])
    assert peft.PeftConfig.from_pretrained(out).base_model_name_or_path == str(out / "base_model")
    assert ".part" not in (out / "README.md").read_text()


def loralib_state(folder: Path) -> dict[str, torch.Tensor]:
    """Our adapter under loralib's names, written by this test's own rules."""
    names = {
        "encoder.encoder": "roberta.encoder",
        "head.": "classifier.",
        "lora_a": "lora_A",
        "lora_b": "lora_B",
    }
    state = {}
    for name, tensor in load_file(folder / checkpoint.WEIGHTS).items():
        for ours_, theirs in names.items():
            name = name.replace(ours_, theirs)
        state[name] = tensor
    return state


def test_from_loralib(adapter, base, tmp_path):
    folder = adapter("task=cola", "method.alpha=16")
    state = loralib_state(folder)
    assert state["roberta.encoder.layer.0.attention.self.query.lora_A"].shape == (8, 32)
    torch.save(state, tmp_path / "lora.bin")
    common = [
        "convert",
        str(tmp_path / "lora.bin"),
        "--from",
        "loralib",
        "--task",
        "cola",
        "--base",
        str(base),
    ]
    main([*common, "--alpha", "16", "--out", str(tmp_path / "back")])
    assert torch.equal(our_outputs(tmp_path / "back"), our_outputs(folder))
    main([*common, "--alpha", "8", "--out", str(tmp_path / "other")])
    assert not torch.allclose(our_outputs(tmp_path / "other"), our_outputs(folder))


def article_state(folder: Path, base: Path, classes: int) -> dict:
    """Our adapter under the article's names, with its four facts and its unused pooler bias."""
    names = {
        "encoder.": "model.",
        "head.": "finetune_head_",
        ".query.lora_": ".lora_query_matrix_",
        ".value.lora_": ".lora_value_matrix_",
    }
    state = {"model.pooler.dense.bias": torch.randn(32)}
    for name, tensor in load_file(folder / checkpoint.WEIGHTS).items():
        new = name
        for ours_, theirs in names.items():
            new = new.replace(ours_, theirs, 1)
        state[new[:-1] + new[-1].upper() if "matrix" in new else new] = tensor
    return {
        **state,
        "model_id": str(base),
        "task_type": "glue",
        "lora_rank": 8,
        "num_classes": classes,
    }


@pytest.mark.parametrize(("task", "classes"), [("cola", 2), ("stsb", 1)])
def test_from_the_article(adapter, base, tmp_path, task, classes):
    policy = ["head=article", "method.alpha=8", "method.biases=all", "method.layer_norms=true"]
    folder = adapter(f"task={task}", *policy)
    state = article_state(folder, base, classes)
    assert state["model.encoder.layer.0.attention.self.lora_query_matrix_A"].shape == (8, 32)
    assert (
        "finetune_head_classifier.weight" in state and len(state) == 2 * 14 + 2 + 1 + 4 + 4
    )  # 12 layers: 175 + 4
    torch.save(state, tmp_path / "article.pth")
    main(
        [
            "convert",
            str(tmp_path / "article.pth"),
            "--from",
            "article",
            "--task",
            task,
            "--out",
            str(tmp_path / "back"),
        ]
    )
    before = our_outputs(folder)
    assert torch.equal(our_outputs(tmp_path / "back"), before)
    if task == "stsb":  # 5 * sigmoid: always within the range of the targets
        head, hidden = load_model(folder)[0].head, torch.randn(4, 32)
        normed = torch.nn.functional.layer_norm(hidden, (32,), head.norm.weight, head.norm.bias)
        expected = 5 * torch.sigmoid(normed @ head.classifier.weight.T + head.classifier.bias)
        torch.testing.assert_close(head(hidden), expected)
        assert before.min() > 0 and before.max() < 5


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def broken(kind: str, good: dict) -> dict | bytes:
    """A loralib file with one thing wrong."""
    query = "roberta.encoder.layer.0.attention.self.query.lora_A"
    if kind == "rank":
        return {**good, query: torch.zeros(4, 32)}
    if kind == "shape":
        return {n: t[:, :16] if n.endswith("lora_A") else t for n, t in good.items()}
    if kind == "missing":
        return {n: t for n, t in good.items() if n != query.replace("lora_A", "lora_B")}
    if kind == "extra":
        return {**good, query.replace("query", "nosuch"): torch.zeros(8, 32)}
    if kind == "foreign":
        return {**good, "bert.pooler": torch.zeros(3)}
    if kind == "no head":
        return {n: t for n, t in good.items() if not n.startswith("classifier")}
    return {"a": 3}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("rank", r"has LoRA matrices of ranks \[4, 8\]; must be one rank"),
        (
            "shape",
            r"wrong shape \['encoder.encoder.layer.0.attention.self.query.lora_a is \(8, 16\)",
        ),
        ("missing", r"missing \['encoder.encoder.layer.0.attention.self.query.lora_b'\]"),
        ("extra", r"unknown \['encoder.encoder.layer.0.attention.self.nosuch.lora_a'\]"),
        ("foreign", "bert.pooler is not a parameter of a RoBERTa encoder or of a text head"),
        ("no head", r"has no head \(classifier.\*\)"),
        ("no tensors", "must be a dict of tensors"),
        ("truncated", "is damaged"),
        ("code", "holds more than tensors and plain values; refused, nothing in it was run"),
        ("gone", "lora.bin: no such file"),
    ],
)
def test_a_bad_file_gives_a_one_line_error_and_nothing_is_run_or_left(
    adapter, base, tmp_path, monkeypatch, kind, message
):
    monkeypatch.chdir(tmp_path)
    path, out = tmp_path / "lora.bin", tmp_path / "back"
    good = loralib_state(adapter("task=cola"))
    if kind == "truncated":
        torch.save(good, path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "code":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind != "gone":
        torch.save(broken(kind, good), path)
    with pytest.raises(SystemExit, match=message) as caught:
        options = ["--from", "loralib", "--task", "cola", "--base", str(base), "--alpha", "8"]
        main(["convert", str(path), *options, "--out", str(out)])
    assert str(caught.value).startswith("error: ") and "\n" not in str(caught.value)
    assert not out.exists() and not (tmp_path / "executed").exists()


def test_our_own_folder_is_checked_as_well(adapter, tmp_path, tiny_spec):
    folder = adapter("task=cola")
    facts, weights = folder / checkpoint.FACTS, folder / checkpoint.WEIGHTS
    good, text = weights.read_bytes(), facts.read_text()

    def refused(message: str):
        with pytest.raises(SystemExit, match=message):
            main(["merge", str(folder), "--out", str(tmp_path / "merged")])
        weights.write_bytes(good)
        facts.write_text(text)

    weights.write_bytes(good[:-100])
    refused("adapter.safetensors: is damaged")
    state = load_file(weights)
    save_file({**state, "more": torch.zeros(2)}, weights)
    refused(r"unknown \['more'\]")
    facts.write_text(text.replace('"rank": 8', '"rank": 4'))
    refused(r"lora_a is \(8, 32\), must be \(4, 32\)")
    facts.write_text(text[:-20])
    refused("adapter.json: is damaged")
    facts.write_text(text.replace('"format": 2', '"format": 9'))
    refused("has format 9; this version reads up to 2")
    facts.write_text(text.replace(json.loads(text)["base_model"]["source"], "random:tiny"))
    refused("was trained on another base model")
    facts.unlink()
    with pytest.raises(
        SystemExit, match="no adapter.json there; must be the folder of a finished run"
    ):
        main(["inspect", str(folder)])


@pytest.mark.parametrize(
    ("overrides", "command", "message"),
    [
        (
            ["method=adapter_houlsby"],
            ["merge"],
            "method=adapter_houlsby: a stock RoBERTa has no roberta",
        ),
        (["head=article"], ["merge"], "head=article: transformers has no such head"),
        (
            ["method=bitfit"],
            ["convert", "--to", "peft"],
            "method=bitfit: PEFT has no layers for what it trains; must be LoRA of this project",
        ),
        (
            ["method=peft_ia3", "method.biases=all"],
            ["convert", "--to", "peft"],
            "method.biases=all: PEFT does not save biases with IA3; must be none",
        ),
        (
            [
                "method=peft_lora",
                "method.targets=[]",
                "method.embeddings=true",
                "+method.args.target_modules=[word_embeddings,query]",
            ],
            ["convert", "--to", "peft"],
            "method=peft_lora: PEFT has no place for roberta.embeddings.word_embeddings",
        ),
        (
            ["method=relora"],
            ["convert", "--to", "peft"],
            "method=relora: PEFT has no layers for what it trains",
        ),
        ([], ["convert"], "--from ours --to ours: exactly one of them must be ours"),
        (
            [],
            ["convert", "--from", "peft"],
            "--from peft: needs --task, which the file does not state",
        ),
        (
            [],
            ["convert", "--from", "loralib"],
            "--from loralib: needs --task and --base and --alpha",
        ),
        ([], ["convert", "--from", "peft", "--task", "nosuch"], "task=nosuch: must be one of cola"),
        (
            [],
            ["convert", "--from", "peft", "--task", "cola"],
            "adapter: no adapter_config.json there",
        ),
    ],
)
def test_what_cannot_be_done_gives_a_one_line_error(adapter, tmp_path, overrides, command, message):
    folder = adapter("task=cola", *overrides)
    with pytest.raises(SystemExit, match=message) as caught:
        main([command[0], str(folder), *command[1:], "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit):
        main([command[0], str(folder), *command[1:], "--out", str(tmp_path / "a" / "b" / "out")])
    assert not (tmp_path / "a").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(SystemExit, match="exists already; choose another folder"):
        main(["merge", str(folder), "--out", str(tmp_path / "there")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["merge"], "a 4-bit weight cannot take the update"),
        (["convert", "--to", "peft"], "a 4-bit base is not a plain model"),
    ],
)
def test_a_quantized_base_is_refused(adapter, tmp_path, command, message):
    pytest.importorskip("bitsandbytes")
    folder = adapter("task=cola", "method=qlora", model="model=minilm")
    with pytest.raises(SystemExit, match=message):
        main([command[0], str(folder), *command[1:], "--out", str(tmp_path / "out")])
    path = folder / "adapter.json"  # as the message says
    facts = json.loads(path.read_text())
    facts["method"]["file"] = "lora"
    path.write_text(json.dumps(facts))
    main([command[0], str(folder), *command[1:], "--out", str(tmp_path / "out")])


def test_a_peft_folder_that_is_not_plain_lora_is_refused(adapter, tmp_path):
    pytest.importorskip("peft")
    folder = adapter("task=cola")
    main(["convert", str(folder), "--to", "peft", "--out", str(tmp_path / "peft")])
    path = tmp_path / "peft" / "adapter_config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"use_dora": True}, "uses use_dora"),
        ({"peft_type": "IA3"}, "peft_type=IA3; must be LORA"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(SystemExit, match=message):
            main(
                [
                    "convert",
                    str(path.parent),
                    "--from",
                    "peft",
                    "--task",
                    "cola",
                    "--out",
                    str(tmp_path / "x"),
                ]
            )


def test_inspect_says_what_it_is(adapter, capsys):
    main(["inspect", str(adapter("task=mnli", "method.rank=3"))])
    text = capsys.readouterr().out
    assert (
        '"rank": 3' in text
        and "encoder.encoder.layer.0.attention.self.query.lora_a  (3, 32)" in text
    )
    assert text.rstrip().endswith("12 parameters, 1,923 numbers")


def test_a_run_starts_from_an_imported_adapter_and_from_a_key(tiny_spec, tmp_path):
    first = tiny_spec("task=mnli")
    run(first)
    key = prepare(first).key
    by_key, by_folder = (
        tiny_spec("task=rte", f"init_from={start}", "train.epochs=1")
        for start in (key, f"{first.out_dir}/runs/mnli/{key}/adapter")
    )
    plain = tiny_spec("task=rte", "train.epochs=1")
    assert prepare(by_key).key == prepare(by_folder).key != prepare(plain).key
    done = run(by_key)
    assert done.status == "ok" and done.start == checkpoint.start_of(
        prepare(first).folder / "adapter"
    )
    assert done.start["cell"] == prepare(first).identity.cell and done.start["task"] == "mnli"
    with pytest.raises(SpecError, match="init_from=nosuch: must be the key of a run below"):
        run(tiny_spec("task=rte", "init_from=nosuch"))


def test_an_adapter_of_another_project_is_a_cell_of_its_own(adapter, tmp_path):
    folder = adapter("task=cola")
    start = checkpoint.start_of(folder)
    assert start["cell"] == f"cola-base-lora-r8-{start['fingerprint']}"
    weights = folder / checkpoint.WEIGHTS
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    assert checkpoint.start_of(folder)["fingerprint"] != start["fingerprint"]
    weights.unlink()
    with pytest.raises(checkpoint.AdapterError, match="no adapter.safetensors there"):
        checkpoint.start_of(folder)


FORMAT_1 = {
    "squad_v2": ({"unanswerable": True}, {"unanswerable": True}, "lora", {}, {}),
    "squad_v1": ({"unanswerable": False}, {}, "lora", {}, {}),
    "cola": (
        {"unanswerable": False},
        {},
        "peft_vera",
        {"r": 8, "d_initial": 0.1},
        {"d_initial": 0.1},
    ),
}


@pytest.mark.parametrize("task", FORMAT_1)
def test_an_adapter_of_format_1_still_loads(adapter, task):
    """Format 1 had ``unanswerable`` beside the task's name, and the rank in PEFT's args too."""
    old_task, args, method, old_args, new_args = FORMAT_1[task]
    folder = adapter(f"task={task}", "head=article")
    before = our_outputs(folder)
    path = folder / checkpoint.FACTS
    facts = json.loads(path.read_text())
    del facts["cell"], facts["task"]["args"]
    facts["format"] = 1
    facts["task"] |= old_task
    path.write_text(json.dumps(facts))
    assert torch.equal(our_outputs(folder), before)
    assert checkpoint.spec_of(folder).task.args == args
    facts["method"] |= {"name": method, "args": old_args}
    path.write_text(json.dumps(facts))
    assert checkpoint.spec_of(folder).method.args == new_args
    assert checkpoint.read_facts(folder)["cell"] is None
    del facts["task"]["unanswerable"]
    path.write_text(json.dumps(facts))
    with pytest.raises(checkpoint.AdapterError, match="is malformed for format 1: 'unanswerable'"):
        checkpoint.spec_of(folder)
