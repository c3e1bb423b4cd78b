"""The encoder pass against transformers' own, and against a plain reference with dropout on."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from lora_bench.checks import TARGETS
from lora_bench.model.affine import affine, stacked_bias
from lora_bench.model.attention import attend
from lora_bench.model.dropout import DropoutStream
from lora_bench.model.encoder import load_encoder
from lora_bench.model.forward import EncoderPass
from lora_bench.model.functions import ResidualNorm
from lora_bench.model.fused import Mask
from lora_bench.model.inject import inject_lora, lora_layers
from lora_bench.model.layers import Affine, Layers, Parts
from lora_bench.model.lora import LoraLinear
from lora_bench.model.product import Product
from lora_bench.model.rows import Rows
from lora_bench.model.streams import Streams

from .conftest import MINILM, TINY
from .helpers import random_batch
from .reference_encoder import encode_plainly

LENGTHS = [3, 70, 1, 40, 12, 66]  # several grids, some with padding
SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(("query", "key", "value"), n)]


@pytest.fixture(autouse=True)
def _several_grids(monkeypatch):
    """Short examples are worth a grid of their own in these tests."""
    monkeypatch.setattr("lora_bench.model.grids.DRAWN", 100)


def make_encoder(
    targets=("query", "value"), layers=None, dropout=0.0, lora_dropout=0.0, model=TINY
) -> nn.Module:
    """An encoder in float64 with updates that are not zero; only these are trained."""
    encoder = load_encoder(model, dropout=dropout)
    inject_lora(encoder, targets=targets, layers=layers, rank=3, alpha=6.0, dropout=lora_dropout)
    encoder.requires_grad_(False)
    for layer in lora_layers(encoder):
        nn.init.normal_(layer.lora_b, std=0.3)
        layer.lora_a.requires_grad_(True)
        layer.lora_b.requires_grad_(True)
    return encoder.double().train()


def single_pass(encoder, dtype=None):
    """The pass of one run, as a function of a batch and a stream."""
    encode = EncoderPass([encoder], dtype)

    def function(batch, stream=None, **options) -> torch.Tensor:
        (hidden,) = encode(batch, [stream], **options)
        return hidden

    return function


def train(encoder, *kinds) -> None:
    """Let every parameter learn whose module or name is of one of ``kinds``."""
    for module in encoder.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name in kinds or type(module) in kinds:
                parameter.requires_grad_(True)


def gradients(encoder, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a loss that is not symmetric in anything, by name; leaves no gradient behind."""
    weight = torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view(hidden.shape)
    (hidden * weight + hidden.square()).sum().backward()
    found = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.requires_grad}
    encoder.zero_grad()
    return found


def padded(encoder, batch) -> torch.Tensor:
    """transformers' own padded path: (T, D)."""
    parts = batch.input_ids.split(batch.cu_seqlens.diff().tolist())
    ids = nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=1)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(p) for p in parts], batch_first=True)
    before = encoder.config._attn_implementation
    encoder.set_attn_implementation("sdpa")
    out = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    encoder.set_attn_implementation(before)
    return out[mask.bool()]


def assert_same(encoder, one: torch.Tensor, other: torch.Tensor, tolerance=1e-9) -> None:
    torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
    first, second = gradients(encoder, one), gradients(encoder, other)
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("targets", [*SUBSETS, TARGETS], ids="-".join)
@pytest.mark.parametrize("kinds", [(), ("bias",), (nn.LayerNorm,)], ids=["", "bias", "norm"])
def test_values_and_gradients_are_those_of_transformers(targets, kinds):
    encoder = make_encoder(targets)
    train(encoder, *kinds)
    batch = random_batch(LENGTHS)
    assert len(batch.layout.grids) > 1
    assert_same(encoder, single_pass(encoder)(batch), padded(encoder, batch))


def test_full_fine_tuning_and_adapters_in_some_layers():
    batch = random_batch(LENGTHS)
    full = load_encoder(TINY, dropout=0.0).double()
    assert_same(full, single_pass(full)(batch), padded(full, batch))
    top = make_encoder(layers=[1])
    assert_same(top, single_pass(top)(batch), padded(top, batch))


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("lora_dropout", [0.0, 0.2])
def test_with_dropout_equal_to_the_plain_reference(first_only, lora_dropout):
    encoder = make_encoder(TARGETS, dropout=0.2, lora_dropout=lora_dropout)
    train(encoder, "bias", nn.LayerNorm)
    batch = random_batch(LENGTHS)
    streams = [DropoutStream(Streams(5)) for _ in range(2)]
    ours = single_pass(encoder)(batch, streams[0], first_only=first_only)
    assert_same(encoder, ours, encode_plainly(encoder, batch, streams[1], first_only))


def test_first_tokens_alone_are_those_of_the_whole_pass():
    encoder, batch = make_encoder(TARGETS), random_batch(LENGTHS)
    encode = single_pass(encoder)
    alone = encode(batch, first_only=True)
    assert alone.shape == (len(LENGTHS), 32)
    assert_same(encoder, alone, encode(batch)[batch.first])


def test_in_evaluation_there_is_no_dropout():
    encoder, batch = make_encoder(dropout=0.5).eval(), random_batch(LENGTHS)
    with torch.no_grad():
        torch.testing.assert_close(single_pass(encoder)(batch), padded(encoder, batch))


def test_disabled_and_merged_updates():
    encoder, batch = make_encoder().float(), random_batch(LENGTHS)
    encode = single_pass(encoder, torch.bfloat16)  # which keeps copies of frozen weights
    adapted = encode(batch)
    for layer in lora_layers(encoder):
        layer.merge()
    torch.testing.assert_close(encode(batch), adapted, atol=0.1, rtol=0.1)
    for layer in lora_layers(encoder):
        layer.unmerge()
        layer.enabled = False
    assert not torch.allclose(encode(batch), adapted, atol=0.1, rtol=0.1)


def test_a_changed_frozen_weight_is_seen():
    encoder, batch = make_encoder().float(), random_batch([4, 2])
    encode = single_pass(encoder, torch.bfloat16)
    before = encode(batch)
    with torch.no_grad():
        encoder.encoder.layer[0].intermediate.dense.weight.add_(1.0)
    assert not torch.equal(encode(batch), before)


def test_replaced_modules_and_hooks_are_called():
    encoder, batch = make_encoder(), random_batch([4, 2])
    encode, seen = single_pass(encoder), []
    before = encode(batch)
    layer = encoder.encoder.layer[0]
    handle = layer.intermediate.dense.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(encode(batch), before)
    handle.remove()

    class Doubled(nn.Linear):
        def forward(self, x):
            seen.append(2)
            return 2 * super().forward(x)

    for owner, name in ((layer.attention.self, "key"), (layer.output, "dense")):
        getattr(owner, name).__class__ = Doubled
    assert_same(encoder, encode(batch), padded(encoder, batch))
    assert set(seen) == {1, 2}

    class Attention(type(layer.attention.self)):
        pass

    layer.attention.self.__class__ = Attention
    assert_same(encoder, encode(batch), padded(encoder, batch))


@pytest.mark.slow
def test_bf16_is_close_to_fp32():
    """On average bf16 costs 2 % of the norm of the hidden states, 4 % of that of all gradients."""
    encoder = make_encoder(model=MINILM, dropout=0.1).float()
    errors = []
    for seed in range(8):
        batch = random_batch([40, 25, 61, 8], vocabulary=20_000, seed=seed)
        results = []
        for dtype in (torch.float32, torch.bfloat16):
            stream = DropoutStream(Streams(seed))  # the same masks in both precisions
            hidden = single_pass(encoder, dtype)(batch, stream, first_only=True)
            found = gradients(encoder, hidden.float()).values()
            results.append((hidden.detach().float(), torch.cat([g.flatten() for g in found])))
        pairs = zip(*results, strict=True)
        errors.append([((exact - other).norm() / exact.norm()).item() for exact, other in pairs])
    hidden_error, gradient_error = np.mean(errors, 0)
    assert hidden_error < 0.02 and gradient_error < 0.04


def test_a_copy_of_a_bf16_encoder_computes_the_same():
    encoder = make_encoder(model=MINILM).float()
    encode = EncoderPass([encoder], torch.bfloat16)
    batch = random_batch([9, 4])
    (before,) = encode(batch)
    assert torch.equal(copy.deepcopy(encode)(batch)[0], before)
    with torch.no_grad():  # frozen weights that change are packed again
        encoder.encoder.layer[0].output.dense.weight.mul_(2)
    assert not torch.equal(encode(batch)[0], before)


def affine_of(x, *layers):
    product = Product([layer.weight for layer in layers], x.dtype)
    bias = stacked_bias(layers, x.dtype)
    return affine(x, Layers([layers]), Parts([slice(0, len(x))]), product, bias)


@pytest.mark.parametrize("dropped", [False, True])
def test_affine_passes_gradcheck(dropped):
    torch.manual_seed(1)
    x, base, adapted, bias, a, b = (
        torch.randn(shape, dtype=torch.double, requires_grad=True)
        for shape in [(6, 4), (3, 4), (5, 4), (5,), (2, 4), (5, 2)]
    )
    keep = torch.randint(0, 2, (6, 4)).double() if dropped else None

    def function(x, base, adapted, bias, a, b):
        return affine_of(x, Affine(base, None), Affine(adapted, bias, a, b, 0.7, keep, 1.5))

    assert torch.autograd.gradcheck(function, (x, base, adapted, bias, a, b))


@pytest.mark.parametrize("dropped", [False, True])
def test_residual_norm_passes_gradcheck(dropped):
    h, residual = torch.randn(2, 6, 4, dtype=torch.double).unbind(0)
    inputs = [x.clone().requires_grad_() for x in (h, residual, residual[0], residual[1])]
    keep = torch.randint(0, 2, (6, 4)).double() if dropped else None

    def function(h, residual, weight, bias):
        return ResidualNorm.apply(h, residual, keep, 1.5, weight, bias, 1e-5)

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_attention_passes_gradcheck(p, first_only):
    layout = random_batch([40, 3, 1]).layout
    assert len(layout.grids) == 2 and layout.height == 64
    heads, width = 2, 4
    queries = torch.randn(3 if first_only else 64, width * (1 if first_only else 3)).double()
    keys_values = torch.randn(64, 2 * width).double() if first_only else None
    inputs = [x.requires_grad_() for x in (queries, keys_values) if x is not None]
    rows = Rows(layout, [None])

    def function(queries, keys_values=None):
        torch.manual_seed(0)  # the same masks in each call
        return attend(queries, keys_values, rows, heads, 0.5, Mask(None, 0, p))

    assert torch.autograd.gradcheck(function, inputs)


def test_dropout_rates_of_every_place():
    """With one example repeated, the share of attention that is dropped, and each block's mean."""
    encoder = make_encoder(dropout=0.25)
    stream, drawn = DropoutStream(Streams(0)), []
    draw = stream.draw

    def spy(shape, p, dtype):
        mask = draw(shape, p, dtype)
        drawn.append((p, mask.float().mean().item(), mask.numel()))
        return mask

    stream.draw = spy
    single_pass(encoder)(random_batch([20] * 30), stream)
    assert len(drawn) == 7  # embeddings, and of two layers attention and both blocks
    for p, kept, size in drawn:
        assert p == 0.25
        assert kept == pytest.approx(0.75, abs=5 * (0.25 * 0.75 / size) ** 0.5)


def test_nothing_is_kept_for_gradients_that_nobody_asked_for():
    x = torch.randn(4, 3, requires_grad=True)
    frozen = nn.Linear(3, 3).requires_grad_(False)
    out = affine_of(x, Affine(frozen.weight, frozen.bias))
    assert out.grad_fn.saved_tensors[0] is None
    adapted = LoraLinear(3, 3, rank=1, alpha=1.0).requires_grad_(False)
    adapted.lora_a.requires_grad_(True)
    layer = Affine(adapted.weight, adapted.bias, adapted.lora_a, adapted.lora_b, 1.0)
    assert not affine_of(x.detach(), Affine(frozen.weight, None)).requires_grad
    out = affine_of(x, layer)  # kept: before torch 2.13 its node lets go of tensors with it
    assert out.grad_fn.saved_tensors[0] is not None
