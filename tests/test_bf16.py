"""bf16 on CPUs that have no instructions for it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lora_bench.model import bf16, product
from lora_bench.model.bf16 import PRODUCTS, bf16_products
from lora_bench.model.group import Group
from lora_bench.tasks import make_task
from lora_bench.training.evaluation import predict
from lora_bench.training.fit import fit
from lora_bench.training.trainee import Trainee

from .helpers import yes_data

X, Y, Z = (torch.randn(6, 6, generator=torch.manual_seed(seed)).bfloat16() for seed in range(3))
CALLS = {
    "mm": lambda: X @ Y,
    "addmm": lambda: torch.addmm(Z, X, Y, alpha=0.5),
    "addmm_": lambda: Z.clone().addmm_(X, Y, beta=0.5),
    "bmm": lambda: torch.bmm(X[None], Y[None]),
    "baddbmm": lambda: torch.baddbmm(Z[None], X[None], Y[None], alpha=2.0),
    "baddbmm_": lambda: Z[None].clone().baddbmm_(X[None], Y[None]),
    "out": lambda: torch.baddbmm(
        Z[None], X[None], Y[None], beta=0, alpha=3.0, out=torch.empty(1, 6, 6).bfloat16()
    ),
}


@pytest.fixture
def lacking(monkeypatch, tiny_spec):
    """Settings in bf16 for a CPU that lacks it, whatever this CPU has."""
    monkeypatch.setattr(bf16, "has_bf16", lambda: False)
    monkeypatch.setattr(product, "has_bf16", lambda: False)
    return lambda *words: tiny_spec("precision=bf16", *words)


class Bf16Products(TorchDispatchMode):
    """Names of the matrix products that reach PyTorch with bf16 arguments."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        # The attention kernel is as fast in bf16, and adds in fp32 itself.
        is_product = name in {*PRODUCTS, "linear", "matmul", "mv", "addmv", "dot", "einsum"}
        if is_product and any(x.dtype is torch.bfloat16 for x in tensors):
            self.names.add(name)
        return func(*args, **kwargs or {})


def test_every_product_is_tried():
    assert {*CALLS} == {*PRODUCTS, "out"}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_product_in_fp32_equals_the_one_in_bf16_up_to_rounding(lacking, name):
    native = CALLS[name]()
    with Bf16Products() as seen, bf16_products(lacking()):
        found = CALLS[name]()
    assert not seen.names and found.dtype is torch.bfloat16
    torch.testing.assert_close(found, native, rtol=2**-8, atol=2**-8)


def test_a_run_in_fp32_replaces_no_product(lacking, tiny_spec):
    with Bf16Products() as seen, bf16_products(tiny_spec()):
        CALLS["mm"]()
    assert seen.names == {"mm"}


@pytest.mark.parametrize(
    "words",
    [
        ["method=lora"],
        ["method=full"],
        ["method=peft_dora"],
        ["method=adapter_houlsby"],
        ["method=head_only", "train.frozen_prefix=cache", "train.dropout=0"],
    ],
)
def test_training_and_scoring_compute_no_product_in_bf16(lacking, words):
    spec = lacking("task=cola", "train.epochs=1", *words)
    task, data = make_task(spec.task), yes_data(8)
    with Bf16Products() as seen:
        trainee = Trainee(spec, task, data)
        fit([trainee])
        predict(Group([trainee.model]), task, data, spec)
    assert not seen.names
