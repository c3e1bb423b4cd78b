from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lora_bench.checkpoint import AdapterError, load_adapter, save_adapter
from lora_bench.errors import SpecError
from lora_bench.methods import get_method
from lora_bench.model.build import build
from lora_bench.model.group import Group
from lora_bench.model.streams import Streams
from lora_bench.model.wrapper import LoraWrapperRoberta
from lora_bench.spec import Spec
from lora_bench.tasks import make_task
from lora_bench.tasks.encoding import cached
from lora_bench.training.evaluation import predict
from lora_bench.training.fit import Loop, fit
from lora_bench.training.trainee import (
    Diverged,
    Trainee,
    batches,
    linear_schedule,
)

from .helpers import every, yes_data


def trainee_of(spec: Spec, examples: int = 64) -> Trainee:
    return Trainee(spec, make_task(spec.task), yes_data(examples))


def model_of(spec: Spec) -> LoraWrapperRoberta:
    return build(spec, make_task(spec.task), get_method(spec.method), Streams(spec.seed))


def test_schedule_rises_to_the_peak_and_falls_to_zero():
    factor = linear_schedule(steps=10, warmup=0.2)
    expected = [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]
    assert [round(factor(i), 3) for i in range(11)] == expected
    assert linear_schedule(4, 0.0)(0) == 1.0
    assert linear_schedule(4, 1.0)(3) == 1.0


@pytest.mark.parametrize("method", every(2, ["lora", "full"]))
def test_the_loop_fits_a_small_task(tiny_spec, method):
    more = ["targets=[query,value,intermediate,output]", "biases=all", "layer_norms=true"]
    policy = [f"method.{setting}" for setting in more] if method == "lora" else []
    recipe = ["train.epochs=40", "train.lr=1e-2", "train.dropout=0"]
    trainee = trainee_of(tiny_spec(f"method={method}", *recipe, *policy))
    fit([trainee])
    assert trainee.epochs[-1]["loss"] < 0.1 < 0.5 < trainee.epochs[0]["loss"]
    data = trainee.data
    assert trainee.examples == 40 * 64 and trainee.tokens == 40 * len(data.input_ids)
    (outputs,) = predict(Group([trainee.model]), trainee.task, data, trainee.spec)
    assert (trainee.task.decode(outputs, [], data) == data.labels).all()


def test_frozen_parameters_do_not_move(tiny_spec):
    trainee = trainee_of(tiny_spec("method=lora", "train.weight_decay=0.1"))
    before = {n: p.clone() for n, p in trainee.model.named_parameters()}
    fit([trainee])
    for name, parameter in trainee.model.named_parameters():
        assert torch.equal(before[name], parameter) != parameter.requires_grad, name


@pytest.mark.parametrize("method", every(2, ["lora", "relora", "peft_lora", "full"]))
def test_runs_trained_in_turn_equal_the_same_runs_alone(tiny_spec, method):
    """Two runs alternate step by step in one process, with dropout: bit for bit the same."""
    more = ["train.lr=1e-2", "method.args.every=2"] if method == "relora" else ["train.lr=1e-2"]
    specs = [tiny_spec(f"method={method}", f"seed={seed}", *more) for seed in (0, 1)]
    alone = []
    for spec in specs:
        trainee = trainee_of(spec)
        fit([trainee])
        alone.append(trainee)
    torch.manual_seed(99)  # the global generator is of no concern
    together = [trainee_of(spec) for spec in specs]
    loops = [Loop([trainee]) for trainee in together]
    for _ in range(specs[0].train.epochs):
        for loop in loops:
            loop.start_epoch()
        for _ in range(together[0].steps_per_epoch):
            for loop in loops:
                loop.step()
        for loop in loops:
            loop.end_epoch()
    for one, other in zip(alone, together, strict=True):
        assert one.epochs == other.epochs
        for name, parameter in one.model.named_parameters():
            assert torch.equal(parameter, other.model.get_parameter(name)), name
    assert alone[0].epochs != alone[1].epochs


def test_predictions_do_not_depend_on_batches_and_keep_the_order(tiny_spec):
    spec = tiny_spec("eval_batch_size=5")
    task, data, group = make_task(spec.task), yes_data(23), Group([model_of(spec)])
    together = torch.stack(predict(group, task, data, spec)[0])
    alone = torch.stack(predict(group, task, data, tiny_spec("eval_batch_size=1"))[0])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_batches_hold_each_example_once_with_its_label(tiny_spec):
    data, model = yes_data(10), model_of(tiny_spec())
    found = list(batches(model, data, 4, np.random.default_rng(1).permutation(10)))
    assert [len(b.labels) for b in found] == [4, 4, 2]
    assert sorted(torch.cat([b.index for b in found]).tolist()) == list(range(10))
    for batch in found:
        examples = batch.input_ids.split(batch.cu_seqlens.diff().tolist())
        has_seven = [bool((tokens == 7).any()) for tokens in examples]
        assert has_seven == batch.labels.bool().tolist()


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=head_only"],
        ["method=lora", "method.layers=[1]", "method.dropout=0.1"],
        ["task=squad_v1", "method=head_only"],
        ["method=peft_lora", "method.layers=[1]"],
    ],
)
def test_a_cached_prefix_trains_as_one_without_dropout(tiny_spec, overrides):
    """Against the whole encoder in each step, with the prefix's dropout rates set to 0."""
    results = []
    for choice in ("cache", "compute"):
        spec = tiny_spec(*overrides, f"train.frozen_prefix={choice}", "train.lr=1e-2")
        labels = {} if spec.task.kind == "text" else {"labels": np.tile([1, 2], (64, 1))}
        trainee = Trainee(spec, make_task(spec.task), replace(yes_data(64), **labels))
        if choice == "compute":
            encoder, depth = trainee.model.encoder, 2 if "method=head_only" in overrides else 1
            for part in (encoder.embeddings, *encoder.encoder.layer[:depth]):
                for module in part.modules():
                    if isinstance(module, nn.Dropout):
                        module.p = 0.0
        fit([trainee])
        results.append(trainee.model.trained_state())
        assert trainee.epochs[-1]["loss"] < trainee.epochs[0]["loss"]
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], atol=1e-5, rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_with_step_and_examples(tiny_spec):
    trainee = trainee_of(tiny_spec())
    nn.init.constant_(trainee.model.head.out_proj.weight, float("nan"))
    message = r"loss is nan at step 1 \(training examples \[.*lower train.lr than 0.001"
    with pytest.raises(Diverged, match=message):
        fit([trainee])


def test_bf16_trains_and_keeps_fp32_weights(tiny_spec):
    trainee = trainee_of(tiny_spec("precision=bf16"))
    fit([trainee])
    assert np.isfinite(trainee.epochs[-1]["loss"])
    assert {p.dtype for p in trainee.model.parameters()} == {torch.float32}


def test_weight_decay_spares_biases_and_norms(tiny_spec):
    groups = trainee_of(tiny_spec("method=full", "train.weight_decay=0.1")).optimizer.param_groups
    decays = {g["weight_decay"]: {p.ndim for p in g["params"]} for g in groups}
    assert decays == {0.1: {2}, 0.0: {1}}


@pytest.mark.parametrize(("overrides", "message"), [
    (["train.max_length=600"], "train.max_length=600: tiny takes at most 512 tokens"),
    (["method.layers=[5]"], "this encoder has layers 0 to 1"),
    (["device=cuda"], "device=cuda: there is no such CUDA device here; must be cpu"),
])  # fmt: skip
def test_what_only_the_model_can_tell_gives_a_one_line_error_too(tiny_spec, overrides, message):
    if torch.cuda.is_available() and "device=cuda" in overrides:
        pytest.skip("this machine has a GPU")
    with pytest.raises(SpecError, match=message):
        model_of(tiny_spec(*overrides))


def test_an_adapter_accounts_for_every_parameter(tiny_spec, tmp_path):
    spec = tiny_spec()
    saved = model_of(spec)
    size = save_adapter(tmp_path, saved, spec)
    assert size > 4 * sum(p.numel() for p in saved.trained_state().values())
    same = model_of(spec)
    with torch.no_grad():
        for tensor in same.trained_state().values():
            tensor.add_(1.0)
    load_adapter(tmp_path, same)
    for name, tensor in saved.trained_state().items():
        assert torch.equal(same.trained_state()[name], tensor)
    value = "encoder.encoder.layer.0.attention.self.value.lora_a"
    for overrides, message in (
        (["method.rank=4"], r"lora_a is \(8, 32\), must be \(4, 32\)"),
        (["method.targets=[query]"], rf"unknown \['{value}'"),
        (["method.layer_norms=true"], r"missing \['encoder.embeddings.LayerNorm.bias'"),
    ):
        with pytest.raises(AdapterError, match=message):
            load_adapter(tmp_path, model_of(tiny_spec(*overrides)))
    other = model_of(spec)
    with torch.no_grad():
        other.encoder.embeddings.word_embeddings.weight.add_(1.0)
    with pytest.raises(AdapterError, match="was trained on another base model"):
        load_adapter(tmp_path, other)


def test_encoding_is_cached_by_what_it_depends_on(tmp_path):
    calls = []

    def build_once():
        calls.append(1)
        return yes_data(5)

    first = cached(tmp_path, ["rows", 1], build_once)
    again = cached(tmp_path, ["rows", 1], build_once)
    assert len(calls) == 1
    for name in vars(first):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    cached(tmp_path, ["rows", 2], build_once)
    assert len(calls) == 2
    damaged = next(tmp_path.glob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    cached(tmp_path, ["rows", 1], build_once)
    cached(tmp_path, ["rows", 2], build_once)
    assert len(calls) == 3
