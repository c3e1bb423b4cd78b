"""Which adapters a run may start from, and the base models that an adapter fits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaModel

from lora_bench import checkpoint
from lora_bench.checkpoint.__main__ import main
from lora_bench.checkpoint.base_model import SAMPLED_MARK
from lora_bench.errors import SpecError, UserError
from lora_bench.model.encoder import load_tokenizer, tiny_config
from lora_bench.predict import write_submission
from lora_bench.training.prepared import prepare
from lora_bench.training.run import run

from .conftest import TINY
from .test_checkpoint import peft_noise
from .test_predict import finished

FOURIER = ["method=peft_fourierft", "method.args.n_frequency=9"]
# what differs -> settings of the adapter and of the run that starts from it
OTHER_FUNCTIONS = {
    "args.random_loc_seed": (
        [*FOURIER, "+method.args.random_loc_seed=1"],
        [*FOURIER, "+method.args.random_loc_seed=2"],
    ),
    "args.init_lora_weights": (["method=peft_pissa"], ["method=peft_lora", "method.alpha=8"]),
    "args.alpha_pattern": (
        ["method=peft_lora", "+method.args.alpha_pattern={query:2}"],
        ["method=peft_lora"],
    ),
    "rank_stabilized": (["method=lora"], ["method=lora", "method.rank_stabilized=true"]),
}


@peft_noise
@pytest.mark.parametrize("setting", OTHER_FUNCTIONS)
def test_an_adapter_that_would_compute_another_function_is_refused(tiny_spec, setting):
    there, here = OTHER_FUNCTIONS[setting]
    first = tiny_spec(*there, "train.epochs=1")
    run(first)
    start = f"init_from={prepare(first).folder}"
    assert run(tiny_spec(*there, "train.epochs=1", "seed=3", start)).status == "ok"
    with pytest.raises(checkpoint.AdapterError, match=f"has {setting}=.*but the run has method"):
        run(tiny_spec(*here, "train.epochs=1", start))


def test_a_folder_that_does_not_exist_is_not_taken_for_the_key_of_a_run(tiny_spec):
    run(first := tiny_spec("train.epochs=1"))
    key = prepare(first).folder.name
    assert (
        checkpoint.init_adapter(tiny_spec(f"init_from={key}")) == prepare(first).folder / "adapter"
    )
    with pytest.raises(SpecError, match="init_from=another/folder/"):
        checkpoint.init_adapter(tiny_spec(f"init_from=another/folder/{key}"))


def change_query(base: Path) -> None:
    """Change a matrix as a merged update does; the embeddings stay."""
    weights = load_file(base / "model.safetensors")
    (name,) = (n for n in weights if n.endswith("layer.1.attention.self.query.weight"))
    weights[name] += 0.01
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def test_a_base_model_that_changed_is_refused(adapter, base, tmp_path):
    folder = adapter("task=cola")
    change_query(base)
    with pytest.raises(SystemExit, match="was trained on another base model"):
        main(["merge", str(folder), "--out", str(tmp_path / "merged")])


def test_a_base_model_that_changed_writes_no_predictions(tiny_spec, tmp_path, base):
    folder = prepare(finished(tiny_spec, tmp_path, "rte", f"model.source={base}")).folder
    change_query(base)
    with pytest.raises(UserError, match="has changed since .* was trained"):
        write_submission(folder, tmp_path / "out")


def test_a_fingerprint_of_the_embeddings_alone_is_still_compared(adapter, base, tmp_path):
    """Adapters of earlier versions have one."""
    folder = adapter("task=cola")
    path = folder / checkpoint.FACTS
    old = path.read_text()
    facts = checkpoint.read_facts(folder)
    assert facts["base_fingerprint"].startswith(SAMPLED_MARK)
    path.write_text(old.replace(facts["base_fingerprint"], "0123456789abcdef"))
    with pytest.raises(SystemExit, match="another base model .fingerprint 0123456789abcdef, here"):
        main(["merge", str(folder), "--out", str(tmp_path / "merged")])


def test_an_adapter_of_an_encoder_with_few_positions_is_merged(adapter, tmp_path):
    """A recipe's default length would not fit it; no adapter has a recipe."""
    torch.manual_seed(0)
    config = tiny_config()
    config.max_position_embeddings = 34
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "short")
    load_tokenizer(TINY).save_pretrained(tmp_path / "short")
    words = ["task=cola", "train.max_length=16"]
    folder = adapter(*words, model=f"model.source={tmp_path}/short")
    main(["merge", str(folder), "--out", str(tmp_path / "merged")])
    assert (tmp_path / "merged" / "model.safetensors").is_file()
