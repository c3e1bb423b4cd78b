"""PEFT's methods in our loop, and our LoRA against PEFT's."""

import numpy as np
import pytest
import torch

from lora_bench.__main__ import compose
from lora_bench.methods import get_method
from lora_bench.model.lora import LoraLinear
from lora_bench.spec import TARGETS, SpecError, UserError
from lora_bench.tasks import make_task
from lora_bench.training.fit import train_step
from lora_bench.training.run import build, run

from .helpers import random_batch
from .test_spec import PEFT

TINY_ARGS = {"peft_vblora": ["method.args.num_vectors=16", "method.args.vector_length=8"]}


@pytest.mark.parametrize("task", ["rte", "squad_v1"])
@pytest.mark.parametrize("method", PEFT)
def test_every_preset_trains_moves_its_adapter_and_reloads(tiny_spec, method, task):
    """run() itself fails if the saved adapter scores differently in a fresh model."""
    spec = tiny_spec(
        f"task={task}", f"method={method}", "train.epochs=1", *TINY_ARGS.get(method, [])
    )
    done = run(spec)
    assert done.parameters["adapter"] > 0
    trained = done.parameters["adapter"] + done.parameters["head"]
    assert done.parameters["trained"] == trained  # nothing else of the encoder


@pytest.mark.parametrize("targets", [["query", "value"], list(TARGETS)], ids=["q+v", "all linear"])
@pytest.mark.parametrize("task_name", ["rte", "squad_v1"])
def test_50_steps_lose_what_pefts_lora_loses(tiny_spec, task_name, targets):
    """Same base, same A, dropout 0, fp32, same batches: losses agree at every step."""
    common = [
        f"task={task_name}",
        "train.dropout=0",
        "train.lr=5e-3",
        f"method.targets=[{','.join(targets)}]",
    ]
    specs = [tiny_spec(*common, "method=lora"), tiny_spec(*common, "method=peft_lora")]
    task = make_task(specs[0].task)
    built = [build(spec, task, get_method(spec.method)) for spec in specs]
    ours, theirs = (model.train() for model, _ in built)
    theirs.head.load_state_dict(ours.head.state_dict())
    with torch.no_grad():
        for name, layer in ours.encoder.named_modules():
            if isinstance(layer, LoraLinear):
                theirs.encoder.get_submodule(name).lora_A["default"].weight.copy_(layer.lora_a)
    assert ours.parameter_counts() == theirs.parameter_counts()
    rng = np.random.default_rng(0)
    optimizers = [
        method.optimizer(model, spec) for (model, method), spec in zip(built, specs, strict=True)
    ]
    trained = [[p for p in model.parameters() if p.requires_grad] for model, _ in built]
    losses = []
    for step in range(1, 51):
        lengths = rng.integers(3, 20, 4)
        labels = (
            rng.integers(0, 2, 4) if task_name == "rte" else np.sort(rng.integers(0, 3, (4, 2)))
        )
        batch = random_batch(lengths, labels=labels, seed=step)
        losses.append(
            [
                train_step(m, h, task, batch, s, o, t, step)
                for (m, h), s, o, t in zip(built, specs, optimizers, trained, strict=True)
            ]
        )
    first, second = np.array(losses).T
    np.testing.assert_allclose(first, second, rtol=1e-4)
    assert first[-10:].mean() < first[:10].mean()  # it did train
    batch = random_batch([5, 9])
    torch.testing.assert_close(ours.eval()(batch), theirs.eval()(batch), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["method.peft_type=NOSUCH"], SpecError, "method.peft_type=NOSUCH: must be one of .*IA3"),
        (["method.peft_type=ADALORA"], SpecError, "`total_step`"),
        (
            ["method.peft_type=PROMPT_TUNING", "method.args={}"],
            SpecError,
            "adds to a model's input and not to its layers",
        ),
        (
            ["method.peft_type=C3A", "method.args={}"],
            SpecError,
            "C3A: cannot go into tiny: The block size should be a factor",
        ),
        (
            ["+method.args.ranke=3"],
            SpecError,
            r"method.args.ranke=3: LORA takes alora_invocation_tokens|alpha_pattern",
        ),
    ],
)
def test_a_wrong_peft_setting_is_one_line(tiny_spec, overrides, error, message):
    spec = tiny_spec("method=peft_lora", *[o for o in overrides if o != "method.args={}"])
    if "method.args={}" in overrides:  # on the command line a dictionary merges into the preset's
        spec.method.args = {}
    with pytest.raises(error, match=message) as caught:
        build(spec, make_task(spec.task), get_method(spec.method))
    assert "\n" not in str(caught.value)


def test_peft_settings_belong_together():
    with pytest.raises(UserError, match="method.peft_type=None: belongs to method.file=peft"):
        compose(["method=lora", "method.file=peft"])
    with pytest.raises(UserError, match="method.peft_type=IA3: belongs to method.file=peft"):
        compose(["method=lora", "method.peft_type=IA3"])
