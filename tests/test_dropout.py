import pytest
import torch

from lora_bench.model import dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_scale_and_gradient(p):
    dropout.seed(1)
    x = torch.ones(1000, 333, requires_grad=True)
    out = dropout.dropout(x, p)
    dropped = (out == 0).float().mean().item()
    assert dropped == pytest.approx(
        p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5 + 1 / dropout.LEVELS
    )
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # the same elements, the same scale


def test_the_stream_is_seeded_and_moves_on():
    shape = torch.Size([7, 3])  # not a multiple of the four draws in a word
    dropout.seed(3)
    first, second = dropout.keep_mask(shape, 0.5), dropout.keep_mask(shape, 0.5)
    dropout.seed(3)
    assert torch.equal(dropout.keep_mask(shape, 0.5), first)
    assert not torch.equal(first, second)


def test_neighbouring_elements_are_independent():
    dropout.seed(0)
    kept = (dropout.keep_mask(torch.Size([400_000]), 0.5) > 0).float()
    for lag in (1, 2, 3, 4):
        assert torch.corrcoef(torch.stack([kept[lag:], kept[:-lag]]))[0, 1].abs() < 0.01
