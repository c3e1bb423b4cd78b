"""Dropout from a run's own stream, at a quarter of the cost of torch's random numbers on a CPU.

torch draws Bernoulli numbers one at a time on a CPU, which took a third of a LoRA step. Here one
64-bit word of the stream decides four elements, so a probability is accurate to 1/65536; the kept
elements are scaled by exactly the inverse of the probability that is used.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .streams import Streams, restore, state_of

LEVELS = 1 << 16  # values of a 16-bit draw


class DropoutStream:
    """The masks of one run, in the order in which they are requested.

    Args:
        streams: random streams of the run.
        device: device of the masks.
    """

    def __init__(self, streams: Streams, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self._words = streams.generator("dropout")
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(streams.torch_seed("dropout"))

    def state(self) -> dict[str, Any]:
        """The position of the stream, for ``restore``."""
        return {"words": state_of(self._words), "generator": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to an earlier state: the next masks are those that followed it."""
        restore(self._words, state["words"])
        self._generator.set_state(state["generator"])

    def key(self) -> np.ndarray:
        """A new key for the masks that a GPU's kernels compute, (2,) int32."""
        return self._words.integers(0, 1 << 32, 2, dtype=np.uint32).view(np.int32)

    def keep(self, shape: torch.Size, p: float, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of any shape: 0 with probability p, else 1. See :func:`rescale`."""
        return self.draw(shape, p, dtype).to(dtype)

    def draw(self, shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
        """As ``keep``, but in int16 on a CPU: a cast can then copy only the parts that are used."""
        if self.device.type != "cpu":
            return self._draw_on_device(torch.empty(shape, device=self.device, dtype=dtype), p)
        size = shape.numel()
        words = self._words.bit_generator.random_raw(-(-size // 4))  # 4 elements for each word
        draws = torch.from_numpy(words.view(np.int16)[:size])
        # A comparison is vectorized only if its result has the type of its operands: 25
        # against 180 microseconds for 0.8 million elements.
        return draws.ge_(threshold(p) - LEVELS // 2).view(shape)

    def _draw_on_device(self, out: Tensor, p: float) -> Tensor:
        from .fused import can_launch, fill_mask

        if can_launch(out.device):
            return fill_mask(out, self.key(), p)
        return out.bernoulli_(1 / rescale(p), generator=self._generator)

    def keep_mask(self, shape: torch.Size, p: float) -> Tensor:
        """A float tensor of any shape: 0 with probability p, else ``rescale(p)``."""
        return self.keep(shape, p).mul_(rescale(p))


def threshold(p: float) -> int:
    """An element is kept if its 16-bit draw is not below this."""
    return round(p * LEVELS)


def rescale(p: float) -> float:
    """Factor of the kept elements: the inverse of the probability that is used."""
    return LEVELS / (LEVELS - threshold(p))


def keep(
    shape: torch.Size,
    p: float,
    like: Tensor,
    parts: Sequence[tuple[slice, DropoutStream | None]],
) -> Tensor | None:
    """A mask of 0 and 1, each part of its rows from one stream; None if p is 0.

    Args:
        shape: shape of the mask.
        p: probability of 0.
        like: has the mask's type and device.
        parts: rows and their stream; None: torch's global generator.
    """
    if p == 0:
        return None
    mask = like.new_empty(shape)
    for rows, stream in parts:
        own = mask[rows]
        own.copy_(draw_mask(own.shape, p, like, stream))
    return mask


def draw_mask(shape: torch.Size, p: float, like: Tensor, stream: DropoutStream | None) -> Tensor:
    """A mask of 0 and 1 from one stream, in the type of ``DropoutStream.draw``.

    Args:
        shape: shape of the mask.
        p: probability of 0, above 0.
        like: has the device, and the type in which the mask will be used.
        stream: None: torch's global generator.
    """
    if stream is None:
        return like.new_empty(shape).bernoulli_(1 / rescale(p))
    return stream.draw(shape, p, like.dtype)


def dropout(x: Tensor, p: float, stream: DropoutStream | None) -> Tensor:
    """Training-time dropout of ``x``, any shape; from torch's global generator without a stream."""
    if p == 0:
        return x
    if stream is None:
        return F.dropout(x, p)
    return x * stream.keep_mask(x.shape, p).to(x.dtype)


class Dropout(nn.Dropout):
    """nn.Dropout that takes its masks from a run's stream if it has one."""

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
