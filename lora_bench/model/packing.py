"""Packed batches: the real tokens of every example in one row, no padding outside of attention.

Linear layers, LayerNorms and activations then work on real tokens only; ``attention.py`` unpacks
queries, keys and values into the grids that this module lays out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Of attention grids; any values compute the same. Below SHORT tokens one grid costs less than the
# calls for several; CELLS keeps the score matrices of a grid in sizes that the allocator reuses.
SHORT = 32
LIKE = 0.75
CELLS = 600_000


@dataclass(frozen=True)
class Grid:
    """The cells of b examples of similar length in a padded (b, L) grid, L the longest of them.

    Attributes:
        rows: (b * L,) packed position behind each cell; any valid one for a padding cell.
        cells: (t,) the cell of each of their t real tokens.
        mask: (b, 1, 1, L) true on real keys; None where all examples are equally long.
    """

    batch: int
    longest: int
    rows: Tensor
    cells: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, starts: Tensor, lengths: Tensor) -> "Grid":
        """starts, lengths (b,): first packed position and length of each example."""
        longest = int(lengths.max())
        column = torch.arange(longest, device=lengths.device)
        real = column < lengths[:, None]  # (b, L)
        rows = torch.where(real, starts[:, None] + column, starts[:, None]).flatten()
        mask = None if bool(real.all()) else real[:, None, None, :]
        return cls(len(lengths), longest, rows, real.flatten().nonzero()[:, 0], mask)


@dataclass(frozen=True)
class Layout:
    """The grids of a packed batch: similar lengths together, so that attention pads little.

    Attributes:
        to_packed: (T,) index of each packed token among the grids' tokens, grid after grid.
        to_grids: (T,) the inverse. Both are None for a single grid, whose tokens keep their order.
    """

    grids: tuple[Grid, ...]
    to_packed: Tensor | None = None
    to_grids: Tensor | None = None

    @classmethod
    def from_lengths(cls, lengths: Tensor) -> "Layout":
        """lengths (B,), each 1 or more."""
        starts = F.pad(lengths.cumsum(0), (1, 0))[:-1]
        groups = _groups(lengths.tolist())
        if len(groups) == 1:
            return cls((Grid.of(starts, lengths),))
        grids = []
        for group in groups:
            chosen = torch.tensor(group, device=lengths.device)
            grids.append(Grid.of(starts[chosen], lengths[chosen]))
        to_grids = torch.cat([grid.rows[grid.cells] for grid in grids])
        return cls(tuple(grids), torch.argsort(to_grids), to_grids)


def _groups(lengths: list[int]) -> list[list[int]]:
    """Indices of the examples of each grid.

    An example has at least LIKE of the longest one's tokens; a head has at most CELLS scores.
    """
    by_length = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if lengths[by_length[0]] <= SHORT and len(lengths) * SHORT**2 <= CELLS:
        return [list(range(len(lengths)))]
    groups: list[list[int]] = []
    for index in by_length:
        longest = lengths[groups[-1][0]] if groups else 0
        like = lengths[index] >= LIKE * longest or longest <= SHORT
        if groups and like and (len(groups[-1]) + 1) * longest**2 <= CELLS:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


@dataclass
class Batch:
    """B packed examples with T tokens in all.

    Attributes:
        input_ids: (T,); position_ids and token_type_ids likewise.
        cu_seqlens: (B + 1,) example i is tokens cu_seqlens[i] to cu_seqlens[i + 1] - 1.
        labels: of each example, in the shape that the task's loss takes; None if unlabelled.
        index: (B,) indices of the examples in their dataset.
    """

    input_ids: Tensor
    position_ids: Tensor
    token_type_ids: Tensor
    cu_seqlens: Tensor
    layout: Layout
    labels: Tensor | None = None
    index: Tensor | None = None

    @property
    def first(self) -> Tensor:
        """Packed position of each example's first token, (B,)."""
        return self.cu_seqlens[:-1]

    @classmethod
    def pack(
        cls,
        input_ids: Sequence[np.ndarray],
        token_type_ids: Sequence[np.ndarray],
        *,
        first_position: int,
        labels: np.ndarray | None = None,
        index: np.ndarray | None = None,
        device: str | torch.device = "cpu",
    ) -> "Batch":
        """Pack examples.

        Args:
            input_ids: of each example, (n_i,).
            token_type_ids: of each example, (n_i,).
            first_position: position of a first token; RoBERTa counts from ``padding_idx + 1``.
            labels: of the examples, first axis B.
            index: of the examples in their dataset, (B,).
            device: of the batch.
        """
        lengths = torch.tensor([len(ids) for ids in input_ids])
        positions = torch.cat(
            [torch.arange(first_position, first_position + n) for n in lengths.tolist()]
        )
        tokens = torch.from_numpy(np.concatenate(input_ids).astype(np.int64))
        types = torch.from_numpy(np.concatenate(token_type_ids).astype(np.int64))
        return cls(
            input_ids=tokens.to(device),
            position_ids=positions.to(device),
            token_type_ids=types.to(device),
            cu_seqlens=F.pad(lengths.cumsum(0), (1, 0)).to(device),
            layout=Layout.from_lengths(lengths.to(device)),
            labels=None if labels is None else torch.from_numpy(labels).to(device),
            index=None if index is None else torch.from_numpy(index),
        )
