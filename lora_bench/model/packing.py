"""Packed batches: every example's real tokens in one row, no padding outside of attention.

Linear layers, LayerNorms and activations then work on real tokens only. For attention the tokens
are laid out in padded grids of examples of similar length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

# Any values compute the same. A CPU compiles its bf16 products for each new shape, which takes
# longer than a small product: rows are rounded up to a multiple of ROWS, and lengths to one of
# LENGTHS, so that shapes come back. Halving a grid is worth its calls if it saves SPLIT scores of a
# head. CELLS keeps the scores of a grid in sizes that the allocator reuses.
ROWS = 32
LENGTHS = 16
SPLIT = 12_000
CELLS = 600_000


@dataclass(frozen=True)
class Grid:
    """A padded grid of b examples of similar length.

    Attributes:
        examples: (b,) indices of its examples in the batch.
        longest: L, number of tokens of the longest, rounded up.
        start: index of its first cell among the cells of all grids.
        bias: (b, 1, 1, L) 0 on real tokens, -inf on padding; None: nothing is padded.
    """

    examples: np.ndarray
    longest: int
    start: int
    bias: Tensor | None

    @property
    def cells(self) -> slice:
        """The grid's part of the cells of all grids."""
        return slice(self.start, self.start + len(self.examples) * self.longest)


@dataclass(frozen=True)
class Layout:
    """The attention grids of T packed tokens, with C cells in all.

    Hidden states have R rows: those of the tokens, then rows that nobody reads.

    Attributes:
        lengths: (B,) tokens of each example.
        height: R, T rounded up.
        grids: each example is in one of them.
        rows: (C,) the packed row of each cell, R for a padding cell.
        cells: (T,) the cell of each token.
    """

    lengths: np.ndarray
    height: int
    grids: tuple[Grid, ...]
    rows: Tensor
    cells: Tensor

    @classmethod
    def from_lengths(cls, lengths: np.ndarray, device: str | torch.device = "cpu") -> "Layout":
        """lengths (B,), each 1 or more."""
        height = _round_up(int(lengths.sum()), ROWS)
        return cls._from_groups(lengths, height, _groups(lengths), device, LENGTHS)

    @cached_property
    def first(self) -> "Layout":
        """The layout of the B first tokens, in grids of the same examples."""
        groups = [grid.examples for grid in self.grids]
        ones = np.ones_like(self.lengths)
        return Layout._from_groups(ones, len(ones), groups, self.rows.device, 1)

    @classmethod
    def _from_groups(
        cls,
        lengths: np.ndarray,
        height: int,
        groups: list[np.ndarray],
        device: str | torch.device,
        step: int,
    ) -> "Layout":
        """The layout with a grid for each group, whose length is a multiple of ``step``."""
        tokens = int(lengths.sum())
        starts = np.cumsum(lengths) - lengths
        grids, rows, start = [], [], 0
        for examples in groups:
            longest = _round_up(int(lengths[examples].max()), step)
            column = np.arange(longest)
            real = column < lengths[examples, None]  # (b, L)
            rows.append(np.where(real, starts[examples, None] + column, height).ravel())
            bias = None
            if not real.all():
                bias = torch.from_numpy(np.where(real, np.float32(0), np.float32("-inf")))
                bias = bias[:, None, None].to(device)
            grids.append(Grid(examples, longest, start, bias))
            start += real.size
        flat = np.concatenate(rows)
        cells = np.empty(height + 1, dtype=np.int64)
        cells[flat] = np.arange(start)
        row_of, cell_of = (torch.from_numpy(x).to(device) for x in (flat, cells[:tokens]))
        return cls(lengths, height, tuple(grids), row_of, cell_of)


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def _groups(lengths: np.ndarray) -> list[np.ndarray]:
    """Indices of the examples of each grid, longest first.

    A grid is halved where that saves more than SPLIT scores of a head, and cut to CELLS of them.
    """
    by_length = np.argsort(-lengths, kind="stable")
    groups = []
    for part in _split(by_length, lengths[by_length].astype(np.int64) ** 2):
        most = max(1, CELLS // int(lengths[part[0]]) ** 2)
        groups += [part[start : start + most] for start in range(0, len(part), most)]
    return groups


def _split(examples: np.ndarray, squares: np.ndarray) -> list[np.ndarray]:
    """Examples in parts of similar length; squares (n,) are their squared lengths, descending."""
    half = len(examples) // 2
    if half == 0 or (squares[0] - squares[half]) * (len(examples) - half) <= SPLIT:
        return [examples]
    return _split(examples[:half], squares[:half]) + _split(examples[half:], squares[half:])


@dataclass
class Batch:
    """B packed examples with T tokens in all.

    Attributes:
        input_ids: (T,).
        position_ids: (T,).
        token_type_ids: (T,).
        cu_seqlens: (B + 1,) example i is tokens cu_seqlens[i] to cu_seqlens[i + 1] - 1.
        layout: grids of its attention.
        labels: first axis B, in the shape that the task's loss takes; None if unlabelled.
        index: (B,) indices of the examples in their dataset.
        hidden: (T, D) the output of the first ``depth`` layers where it is known, else None.
        depth: number of layers behind ``hidden``.
    """

    input_ids: Tensor
    position_ids: Tensor
    token_type_ids: Tensor
    cu_seqlens: Tensor
    layout: Layout
    labels: Tensor | None = None
    index: Tensor | None = None
    hidden: Tensor | None = None
    depth: int = 0

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
        lengths = np.array([len(ids) for ids in input_ids])
        ends = np.cumsum(lengths)
        positions = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths) + first_position
        tokens, types = (np.concatenate(x).astype(np.int64) for x in (input_ids, token_type_ids))
        bounds = np.concatenate([[0], ends])

        def moved(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            input_ids=moved(tokens),
            position_ids=moved(positions),
            token_type_ids=moved(types),
            cu_seqlens=moved(bounds),
            layout=Layout.from_lengths(lengths, device),
            labels=None if labels is None else moved(labels),
            index=None if index is None else torch.from_numpy(index),
        )
