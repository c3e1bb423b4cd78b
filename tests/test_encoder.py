import os
import subprocess
import sys

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, RobertaModel

from lora_bench.model.encoder import (
    load_encoder,
    load_tokenizer,
    resolve,
    roberta_from_bert,
    tiny_config,
)
from lora_bench.model.attention import ATTENTION
from lora_bench.spec import ModelSpec, UserError

from .conftest import MINILM


def test_bert_becomes_roberta_exactly():
    config = BertConfig(
        vocab_size=90, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=20, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).eval()
    roberta = roberta_from_bert(bert).eval()
    ids, types = torch.randint(1, 90, (3, 20)), torch.randint(0, 2, (3, 20))
    ours = roberta(ids, token_type_ids=types).last_hidden_state
    assert (ours - bert(ids, token_type_ids=types).last_hidden_state).abs().max() == 0


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
            "model.source=FacebookAI/roberta-base: cannot be loaded .* offline choices: model=minilm",
        ),
        ("package:no_such_package", "not installed; pip install"),
        ("/nowhere/at/all", "model.source=/nowhere/at/all: no such folder"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_clear_line(source, message):
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(ModelSpec(name="x", source=source))
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no config.json"):
        resolve(str(tmp_path))
    GPT2Config(n_embd=8, n_layer=1, n_head=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a gpt2; must be a RoBERTa or a BERT"):
        load_encoder(ModelSpec(name="x", source=str(tmp_path)), dropout=0.0)


def test_the_hub_path_works_from_a_filled_cache(tmp_path):
    """The cache is filled by hand as the hub's client lays it out; the network is off."""
    repository = tmp_path / "hub" / "models--someone--tiny-roberta"
    commit = "0123456789abcdef0123456789abcdef01234567"
    RobertaModel(tiny_config()).save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    code = (
        "from lora_bench.model.encoder import load_encoder; from lora_bench.spec import ModelSpec\n"
        "print(load_encoder(ModelSpec(name='x', source='someone/tiny-roberta'), dropout=0.0).config.vocab_size)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["261"]
