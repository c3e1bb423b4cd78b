"""Dropout from a run's own stream, whose random numbers cost a quarter of torch's on a CPU.

torch draws Bernoulli numbers one at a time on a CPU, which took a third of a LoRA step. Here one
64-bit word of the stream decides four elements, so a probability is met to 1/65536; the kept
elements are scaled by exactly the inverse of the probability that is drawn.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .streams import Streams

LEVELS = 1 << 16  # values of a 16-bit draw


class DropoutStream:
    """The masks of one run, in the order in which they are asked for.

    Args:
        streams: of the run.
        device: where the masks are needed.
    """

    def __init__(self, streams: Streams, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self._words = streams.generator("dropout")
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(streams.torch_seed("dropout"))

    def keep_mask(self, shape: torch.Size, p: float) -> Tensor:
        """A float tensor of any shape: 0 with probability p, else 1 / (1 - p)."""
        if self.device.type != "cpu":
            kept = torch.empty(shape, device=self.device)
            return kept.bernoulli_(1 - p, generator=self._generator).mul_(1 / (1 - p))
        size = shape.numel()
        threshold = round(p * LEVELS)
        words = self._words.integers(0, 1 << 64, -(-size // 4), dtype=np.uint64)
        mask = (words.view(np.uint16)[:size] >= threshold).astype(np.float32)
        mask *= np.float32(LEVELS / (LEVELS - threshold))
        return torch.from_numpy(mask).view(shape)


def dropout(x: Tensor, p: float, stream: DropoutStream | None) -> Tensor:
    """Training-time dropout of ``x``, any shape; without a stream from torch's global generator."""
    if p == 0:
        return x
    if stream is None:
        return F.dropout(x, p)
    return x * stream.keep_mask(x.shape, p).to(x.dtype)


class Dropout(nn.Dropout):
    """nn.Dropout that takes its masks from a run's stream, once it has one."""

    stream: DropoutStream | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x, any shape."""
        return dropout(x, self.p, self.stream) if self.training else x


def use_stream(module: nn.Module, stream: DropoutStream) -> None:
    """Let every dropout below ``module`` take its masks from ``stream``; rates and modes stay."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                child = Dropout(child.p).train(child.training)
                setattr(parent, name, child)
            if isinstance(child, Dropout):
                child.stream = stream
