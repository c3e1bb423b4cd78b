"""Random numbers depend only on (seed, purpose)."""

import itertools

import numpy as np
import pytest
import torch

from lora_bench.model.streams import PURPOSES, Streams


def numbers(seed: int, purpose: str) -> list[int]:
    return Streams(seed).generator(purpose).integers(0, 1 << 60, 8).tolist()


def test_purposes_and_seeds_give_different_numbers_and_equal_ones_the_same():
    found = {(s, p): numbers(s, p) for s, p in itertools.product((0, 1, 2**40), PURPOSES)}
    assert len({tuple(values) for values in found.values()}) == len(found)
    assert all(numbers(*pair) == values for pair, values in found.items())


def test_what_others_draw_changes_nothing():
    alone = Streams(3).generator("order").permutation(50)
    streams = Streams(3)
    streams.generator("dropout").random(100)
    np.random.seed(0)
    torch.manual_seed(9)
    assert np.array_equal(streams.generator("order").permutation(50), alone)
    assert streams.used == ["dropout", "order"]


def test_drawing_seeds_torch_inside_the_block_and_restores_it():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with Streams(1).drawing("init"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected) and not torch.equal(inside, expected)
    with Streams(1).drawing("init"):
        assert torch.equal(torch.rand(3), inside)


def test_an_unknown_purpose_is_refused():
    with pytest.raises(ValueError, match="purpose=luck: must be one of init, head"):
        Streams(0).generator("luck")
