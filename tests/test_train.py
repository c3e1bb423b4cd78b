import numpy as np
import pytest
import torch
from torch import nn

from lora_bench.checkpoint import AdapterError, load_adapter, save_adapter
from lora_bench.methods import get_method
from lora_bench.spec import MethodSpec, SpecError
from lora_bench.tasks import make_task
from lora_bench.tasks.encoding import cached
from lora_bench.training.fit import NonFiniteLoss, batches, fit, linear_schedule, predict
from lora_bench.training.run import build

from .helpers import yes_data


def test_schedule_rises_to_the_peak_and_falls_to_zero():
    factor = linear_schedule(steps=10, warmup=0.2)
    assert [round(factor(i), 3) for i in range(11)] == [
        0.5,
        1.0,
        1.0,
        0.875,
        0.75,
        0.625,
        0.5,
        0.375,
        0.25,
        0.125,
        0.0,
    ]
    assert linear_schedule(4, 0.0)(0) == 1.0
    assert linear_schedule(4, 1.0)(3) == 1.0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_loop_fits_a_small_task(tiny_spec, method):
    more = [
        "method.targets=[query,value,intermediate,output]",
        "method.biases=all",
        "method.layer_norms=true",
    ]
    spec = tiny_spec(
        f"method={method}",
        "train.epochs=40",
        "train.lr=1e-2",
        "train.dropout=0",
        *more[: 3 * (method == "lora")],
    )
    task, data = make_task(spec.task), yes_data()
    model, instance = build(spec, task, get_method(spec.method))
    result = fit(model, instance, task, data, spec, lambda: {})
    assert result.epochs[-1]["loss"] < 0.1 < 0.5 < result.epochs[0]["loss"]
    assert result.examples == 40 * 64 and result.tokens == 40 * len(data.input_ids)
    assert (task.decode(predict(model, task, data, spec), [], data) == data.labels).all()


def test_frozen_parameters_do_not_move(tiny_spec):
    spec = tiny_spec("method=lora", "train.weight_decay=0.1")
    task = make_task(spec.task)
    model, method = build(spec, task, get_method(MethodSpec(name="lora")))
    before = {n: p.clone() for n, p in model.named_parameters()}
    fit(model, method, task, yes_data(), spec, lambda: {})
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) != parameter.requires_grad, name


def test_predictions_do_not_depend_on_batches_and_keep_the_order(tiny_spec):
    spec = tiny_spec("eval_batch_size=5")
    task, data = make_task(spec.task), yes_data(23)
    model, _ = build(spec, task, get_method(MethodSpec(name="lora")))
    together = torch.stack(predict(model, task, data, spec))
    alone = torch.stack(predict(model, task, data, tiny_spec("eval_batch_size=1")))
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_batches_hold_each_example_once_with_its_label(tiny_spec):
    data = yes_data(10)
    model, _ = build(tiny_spec(), make_task(tiny_spec().task), get_method(MethodSpec(name="lora")))
    found = list(batches(model, data, 4, np.random.default_rng(1).permutation(10)))
    assert [len(b.labels) for b in found] == [4, 4, 2]
    assert sorted(torch.cat([b.index for b in found]).tolist()) == list(range(10))
    for batch in found:
        has_seven = [
            bool((part == 7).any())
            for part in batch.input_ids.split(batch.cu_seqlens.diff().tolist())
        ]
        assert has_seven == batch.labels.bool().tolist()


def test_a_loss_that_is_not_finite_stops_with_step_and_examples(tiny_spec):
    spec = tiny_spec()
    task = make_task(spec.task)
    model, method = build(spec, task, get_method(MethodSpec(name="lora")))
    nn.init.constant_(model.head.out_proj.weight, float("nan"))
    with pytest.raises(
        NonFiniteLoss,
        match=r"loss is nan at step 1 \(training examples \[.*lower train.lr than 0.001",
    ):
        fit(model, method, task, yes_data(), spec, lambda: {})


def test_bf16_trains_and_keeps_fp32_weights(tiny_spec):
    spec = tiny_spec("precision=bf16")
    task = make_task(spec.task)
    model, method = build(spec, task, get_method(MethodSpec(name="lora")))
    result = fit(model, method, task, yes_data(), spec, lambda: {})
    assert np.isfinite(result.epochs[-1]["loss"])
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_weight_decay_spares_biases_and_norms(tiny_spec):
    spec = tiny_spec("method=full", "train.weight_decay=0.1")
    model, method = build(spec, make_task(spec.task), get_method(MethodSpec(name="full")))
    groups = method.optimizer(model, spec).param_groups
    assert {g["weight_decay"]: {p.ndim for p in g["params"]} for g in groups} == {
        0.1: {2},
        0.0: {1},
    }


@pytest.mark.parametrize(("overrides", "message"), [
    (["train.max_length=600"], "train.max_length=600: tiny takes at most 512 tokens"),
    (["method.layers=[5]"], "this encoder has layers 0 to 1"),
    (["method.name=nosuch"], "method.name=nosuch: must be one of adapter, bitfit, full, galore"),
    (["device=cuda"], "device=cuda: no CUDA device is available"),
])  # fmt: skip
def test_what_only_the_model_can_tell_is_one_line_too(tiny_spec, overrides, message):
    if torch.cuda.is_available() and "device=cuda" in overrides:
        pytest.skip("this machine has a GPU")
    spec = tiny_spec(*overrides)
    with pytest.raises(SpecError, match=message):
        build(spec, make_task(spec.task), get_method(spec.method))


def test_an_adapter_accounts_for_every_parameter(tiny_spec, tmp_path):
    def model(*overrides):
        spec = tiny_spec(*overrides)
        return build(spec, make_task(spec.task), get_method(MethodSpec(name="lora")))[0], spec

    saved, spec = model()
    size = save_adapter(tmp_path, saved, spec)
    assert size > 4 * sum(p.numel() for p in saved.trained_state().values())
    same, _ = model()
    with torch.no_grad():
        for tensor in same.trained_state().values():
            tensor.add_(1.0)
    load_adapter(tmp_path, same)
    for name, tensor in saved.trained_state().items():
        assert torch.equal(same.trained_state()[name], tensor)
    for overrides, message in (
        (["method.rank=4"], r"lora_a is \(8, 32\), must be \(4, 32\)"),
        (
            ["method.targets=[query]"],
            r"unknown \['encoder.encoder.layer.0.attention.self.value.lora_a'",
        ),
        (["method.layer_norms=true"], r"missing \['encoder.embeddings.LayerNorm.bias'"),
    ):
        with pytest.raises(AdapterError, match=message):
            load_adapter(tmp_path, model(*overrides)[0])
    with pytest.raises(AdapterError, match="was trained on another base model"):
        load_adapter(tmp_path, model("seed=9")[0])  # the tiny encoder is drawn by the seed


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
