"""Small builders that several tests share."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from lora_bench.lora import lora_layers
from lora_bench.packing import Batch


def random_batch(lengths: Sequence[int], *, first_position: int = 2, vocabulary: int = 200, labels=None) -> Batch:
    """Packed random tokens for the tiny encoder."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, vocabulary, n) for n in lengths]
    types = [np.zeros(n, dtype=np.int64) for n in lengths]
    return Batch.pack(ids, types, first_position=first_position, labels=labels, index=np.arange(len(ids)))


@torch.no_grad()
def randomize_b(model: nn.Module) -> None:
    """Give every B a value, as after training."""
    for layer in lora_layers(model):
        nn.init.normal_(layer.lora_b, std=0.1)
