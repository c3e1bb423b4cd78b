"""Dropout whose random numbers cost a quarter of torch's on a CPU.

torch draws Bernoulli numbers one at a time on a CPU, which took a third of a LoRA step. Here one 64-bit word of a SFC64
stream decides four elements, so a probability is met to 1/65536; the kept elements are scaled by exactly the inverse of
the probability that is drawn. On a GPU torch's own dropout runs.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16  # values of a 16-bit draw

_stream = np.random.Generator(np.random.SFC64(0))


def seed(value: int) -> None:
    """Start the stream of the CPU's dropout anew; torch.manual_seed does not reach it."""
    global _stream
    _stream = np.random.Generator(np.random.SFC64(value))


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """A float tensor on the CPU: 0 with probability p, else 1 / (1 - p)."""
    size = shape.numel()
    threshold = round(p * LEVELS)
    words = _stream.integers(0, 1 << 64, -(-size // 4), dtype=np.uint64)
    mask = (words.view(np.uint16)[:size] >= threshold).astype(np.float32)
    mask *= np.float32(LEVELS / (LEVELS - threshold))
    return torch.from_numpy(mask).view(shape)


def dropout(x: Tensor, p: float) -> Tensor:
    """Training-time dropout of ``x``, any shape."""
    if p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    return x * keep_mask(x.shape, p).to(x.dtype)


class Dropout(nn.Dropout):
    """nn.Dropout with the fast mask."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


def use_fast_dropout(module: nn.Module) -> None:
    """Replace every nn.Dropout below ``module``, in place; rates and modes stay."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p).train(child.training))
