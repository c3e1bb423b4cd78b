"""Masks of a run's stream: rate, scale, independence."""

import pytest
import torch
from torch import nn

from lora_bench.model import dropout
from lora_bench.model.dropout import Dropout, DropoutStream, use_stream
from lora_bench.model.streams import Streams


@pytest.fixture
def stream() -> DropoutStream:
    return DropoutStream(Streams(1))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_scale_and_gradient(p, stream):
    x = torch.ones(1000, 333, requires_grad=True)
    out = dropout.dropout(x, p, stream)
    dropped = (out == 0).float().mean().item()
    spread = (p * (1 - p) / x.numel()) ** 0.5
    assert dropped == pytest.approx(p, abs=4 * spread + 1 / dropout.LEVELS)
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # the same elements, the same scale


def test_a_stream_is_a_function_of_the_seed_and_moves_on():
    shape = torch.Size([7, 3])  # not a multiple of the four draws in a word
    stream = DropoutStream(Streams(3))
    first, second = stream.keep_mask(shape, 0.5), stream.keep_mask(shape, 0.5)
    assert torch.equal(DropoutStream(Streams(3)).keep_mask(shape, 0.5), first)
    assert not torch.equal(DropoutStream(Streams(4)).keep_mask(shape, 0.5), first)
    assert not torch.equal(first, second)


def test_neighboring_elements_are_independent(stream):
    kept = (stream.keep_mask(torch.Size([400_000]), 0.5) > 0).float()
    for lag in (1, 2, 3, 4):
        assert torch.corrcoef(torch.stack([kept[lag:], kept[:-lag]]))[0, 1].abs() < 0.01


def test_every_dropout_of_a_model_takes_the_stream_and_keeps_rate_and_mode(stream):
    model = nn.Sequential(nn.Dropout(0.3), nn.Sequential(Dropout(0.4), nn.Linear(2, 2))).eval()
    use_stream(model, stream)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [(type(m), m.p, m.training, m.stream) for m in found] == [
        (Dropout, 0.3, False, stream),
        (Dropout, 0.4, False, stream),
    ]


def test_without_a_stream_a_dropout_is_torchs():
    torch.manual_seed(5)
    ours = Dropout(0.5)(torch.ones(100))
    torch.manual_seed(5)
    assert torch.equal(ours, nn.Dropout(0.5)(torch.ones(100)))
