import pytest
import torch

from lora_bench.model.dropout import LEVELS, DropoutStream, dropout
from lora_bench.model.streams import Streams


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_scale_and_gradient(p):
    x = torch.ones(1000, 333, requires_grad=True)
    out = dropout(x, p, DropoutStream(Streams(1)))
    dropped = (out == 0).float().mean().item()
    assert dropped == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5 + 1 / LEVELS)
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # the same elements, the same scale


def test_the_stream_is_seeded_and_moves_on():
    shape = torch.Size([7, 3])  # not a multiple of the four draws in a word
    stream, again = DropoutStream(Streams(3)), DropoutStream(Streams(3))
    first, second = stream.keep(shape, 0.5), stream.keep(shape, 0.5)
    assert torch.equal(again.keep(shape, 0.5), first)
    assert not torch.equal(first, second)


def test_neighbouring_elements_are_independent():
    kept = DropoutStream(Streams(0)).keep(torch.Size([400_000]), 0.5)
    for lag in (1, 2, 3, 4):
        assert torch.corrcoef(torch.stack([kept[lag:], kept[:-lag]]))[0, 1].abs() < 0.01
