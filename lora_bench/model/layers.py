"""Descriptions of linear layers that share an input, of one or more runs, for fused functions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from .grids import round_up

ALIGNED = 8  # in bf16, widths and first columns in a grouped product are multiples of this


@dataclass(frozen=True)
class Affine:
    """One linear layer of one run: ``x W^T + bias + scaling (c x * keep) A^T B^T``.

    Args:
        weight: (out, in).
        bias: (out,) or None.
        a: (rank, in) or None: no update.
        b: (out, rank) or None.
        scaling: scaling of the update.
        keep: (T, in), the update's own dropout mask of 0 and 1, or None.
        rescale: c, what kept elements are multiplied by.
    """

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None = None
    b: Tensor | None = None
    scaling: float = 0.0
    keep: Tensor | None = None
    rescale: float = 1.0

    @property
    def rank(self) -> int:
        """Rank of the update, 0 without one."""
        return 0 if self.a is None else self.a.shape[0]

    @property
    def trains_a(self) -> bool:
        """Whether A needs a gradient."""
        return self.a is not None and self.a.requires_grad

    @property
    def trains_b(self) -> bool:
        """Whether B needs a gradient."""
        return self.b is not None and self.b.requires_grad

    @property
    def trains_base(self) -> bool:
        """Whether weight or bias needs a gradient."""
        return self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that need a gradient, in the order of the fields."""
        parameters = (self.weight, self.bias, self.a, self.b)
        return [p for p in parameters if p is not None and p.requires_grad]


@dataclass(frozen=True)
class Place:
    """The layers of all runs at one place among the layers that share an input.

    Attributes:
        layers: one layer of each run.
        number: number of the place.
        columns: its columns of the output.
        ranks: its columns of the inner activations: the highest rank, rounded up.
    """

    layers: Sequence[Affine]
    number: int
    columns: slice
    ranks: slice

    @property
    def rank(self) -> int:
        """Width of the inner activations."""
        return self.ranks.stop - self.ranks.start

    @cached_property
    def scalings(self) -> list[float]:
        """The scaling of each run's update."""
        return [layer.scaling for layer in self.layers]


@dataclass(frozen=True)
class Layers:
    """The linear layers of each run that share an input, in the same places.

    Attributes:
        runs: the layers of each run; layer i has out_i outputs, and N is their sum.
    """

    runs: Sequence[Sequence[Affine]]

    @cached_property
    def widths(self) -> list[int]:
        """Number of outputs of each layer."""
        return [layer.weight.shape[0] for layer in self.runs[0]]

    @cached_property
    def trained(self) -> list[Tensor]:
        """The parameters that need a gradient, run after run."""
        return [p for own in self.runs for layer in own for p in layer.trained]

    @cached_property
    def needs_input(self) -> bool:
        """Whether the gradient of a parameter is computed from the input."""
        every = [layer for own in self.runs for layer in own]
        return any(layer.weight.requires_grad or layer.trains_a for layer in every)

    @cached_property
    def trains_base(self) -> bool:
        """Whether the weight or bias of a layer needs a gradient."""
        return any(layer.trains_base for own in self.runs for layer in own)

    @cached_property
    def updated(self) -> list[int]:
        """The runs that have a low-rank update here."""
        return [i for i, own in enumerate(self.runs) if any(layer.rank for layer in own)]

    @cached_property
    def places(self) -> list[Place]:
        """The places at which a run has an update."""
        return list(self._places())

    @cached_property
    def aligned(self) -> bool:
        """Whether grouped products take these layers: their sizes, and no dropout of their own."""
        every = [layer for own in self.runs for layer in own]
        return all(
            layer.keep is None and all(size % ALIGNED == 0 for size in layer.weight.shape)
            for layer in every
        )

    def _places(self) -> Iterator[Place]:
        column = rank = 0
        columns = zip(zip(*self.runs, strict=True), self.widths, strict=True)
        for number, (layers, width) in enumerate(columns):
            highest = max(layer.rank for layer in layers)
            if highest:
                stop = rank + round_up(highest, ALIGNED)
                yield Place(layers, number, slice(column, column + width), slice(rank, stop))
                rank = stop
            column += width


@dataclass(frozen=True)
class Parts:
    """The rows of each run in the input.

    Attributes:
        rows: the rows of each run; together they cover every row.
        biases: (N,) the biases of each run, where the runs have different ones; else None.
        ends: (runs,) int32, the row after the last one of each run; None: not on a GPU.
        owners: (T, 2) int32, the run of each row, and its number there; None: not on a GPU, or
            runs do not start at multiples of ``tables.ROWS``.
    """

    rows: Sequence[slice]
    biases: Sequence[Tensor | None] | None = None
    ends: Tensor | None = None
    owners: Tensor | None = None
