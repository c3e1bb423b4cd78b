"""Moving heads between packed rows and attention grids, with one gather.

A piece is the d numbers of one head in one part (queries, keys or values) of one row. A tensor
(R, parts * h * d) is a list of R * parts * h pieces, and the grids hold the same pieces in another
order, (parts, b * h, L, d) for each grid; gathering pieces by index converts one into the other.
A zero piece behind the last one stands for rows without a token and, in gradients, for padding
cells. In queries, keys and values a padding cell repeats the first token of its example. Its value
has no effect, but it must be finite, so it must not come from another run, which may diverge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .grids import Grid


@dataclass(frozen=True)
class Pieces:
    """Where each piece is in packed rows and in grids.

    Attributes:
        grids: the attention grids.
        parts: number of parts of a row: 3 for queries, keys and values.
        heads: h.
        zeros: whether padding cells are zero, rather than copies of their example's first token.
        in_rows: (pieces of the grids,) int32, the index of each in the rows.
        in_grids: (pieces of the rows,) int32, the index of each in the grids.
    """

    grids: Sequence[Grid]
    parts: int
    heads: int
    zeros: bool
    in_rows: Tensor
    in_grids: Tensor

    @classmethod
    def of(
        cls,
        grids: Sequence[Grid],
        height: int,
        device: str | torch.device,
        parts: int,
        heads: int,
        zeros: bool,
    ) -> "Pieces":
        """The pieces of rows with this many parts and heads.

        Args:
            grids: the attention grids.
            height: R, the number of rows.
            device: device of the tensors.
            parts: number of parts of a row: 3 for queries, keys and values.
            heads: h.
            zeros: whether padding cells are zero.
        """
        of_row = np.arange(parts * heads, dtype=np.int32).reshape(parts, 1, heads, 1)
        in_rows, start = [], 0
        in_grids = np.empty((height + 1, parts, heads), dtype=np.int32)
        in_grids[:] = parts * heads * sum(grid.rows.size for grid in grids)  # the zero piece
        for grid in grids:
            b, longest = grid.rows.shape
            sources = grid.rows
            if not zeros:
                sources = np.where(sources == height, sources[:, :1], sources)
            in_rows.append((sources[:, None] * (parts * heads) + of_row).ravel())
            stop = start + in_rows[-1].size
            indices = np.arange(start, stop, dtype=np.int32).reshape(parts, b, heads, longest)
            in_grids[grid.rows] = indices.transpose(1, 3, 0, 2)  # (b, L, parts, h)
            start = stop
        tables = np.concatenate(in_rows), in_grids[:-1].ravel()
        return cls(grids, parts, heads, zeros, *(torch.from_numpy(x).to(device) for x in tables))

    def to_grids(self, x: Tensor) -> list[Tensor]:
        """(R, parts * h * d) -> (parts, b * h, L, d) for each grid."""
        size = x.shape[1] // (self.parts * self.heads)
        if self.zeros:
            x = torch.cat([x, x.new_zeros(1, x.shape[1])])
        flat = x.reshape(-1, size)
        return self._views(flat.index_select(0, self.in_rows))

    def empty(self, like: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Memory for grids: all pieces with the zero piece, and a view of it for each grid.

        Args:
            like: has the type, the device and, as its last axis, the size d of a piece.
        """
        flat = like.new_empty(len(self.in_rows) + 1, like.shape[-1])
        flat[-1].zero_()
        return flat, self._views(flat[:-1])

    def to_rows(self, flat: Tensor) -> Tensor:
        """What ``empty`` returned first, its grids filled -> (R, parts * h * d)."""
        width = self.parts * self.heads * flat.shape[1]
        return flat.index_select(0, self.in_grids).view(-1, width)

    def _views(self, flat: Tensor) -> list[Tensor]:
        counts = [self.parts * self.heads * grid.rows.size for grid in self.grids]
        return [
            pieces.view(self.parts, len(grid.rows) * self.heads, grid.longest, -1)
            for grid, pieces in zip(self.grids, flat.split(counts), strict=True)
        ]
