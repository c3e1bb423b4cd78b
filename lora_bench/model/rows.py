"""The rows of the activations that belong to each run, and what its dropout masks come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from . import fused
from .dropout import DropoutStream
from .layout import Layout
from .tables import on_gpu


@dataclass(frozen=True)
class Share:
    """A run's rows of the activations, and the stream of its dropout masks."""

    rows: slice
    stream: DropoutStream | None

    @property
    def alone(self) -> "Share":
        """The share of an input that holds only its own rows."""
        return Share(slice(0, self.rows.stop - self.rows.start), self.stream)


@dataclass(frozen=True)
class Rows:
    """The rows of the activations in a pass.

    Attributes:
        layout: where each run's tokens are.
        streams: streams of each run's dropout masks; None: torch's global generator.
        keys: (runs, 2) keys of the masks that a GPU's kernels compute; None: on a CPU, or nothing
            is dropped.
    """

    layout: Layout
    streams: Sequence[DropoutStream | None]
    keys: Tensor | None = None

    @classmethod
    def of(cls, layout: Layout, streams: Sequence[DropoutStream | None], *, drops: bool) -> "Rows":
        """The rows of a new pass.

        Args:
            layout: where each run's tokens are.
            streams: streams of each run's dropout masks.
            drops: whether dropout masks will be needed.
        """
        device = torch.device(layout.device)
        by_key = drops and on_gpu(device)
        return cls(layout, streams, fused.draw_keys(streams, device) if by_key else None)

    @cached_property
    def shares(self) -> list[Share]:
        """The share of each run."""
        pairs = zip(self.layout.parts, self.streams, strict=True)
        return [Share(part.rows, stream) for part, stream in pairs]

    @cached_property
    def first(self) -> "Rows":
        """The rows of first tokens only."""
        return Rows(self.layout.first, self.streams, self.keys)
