"""Where packed tokens are: their rows in the hidden states, and padded grids for attention.

Linear layers, LayerNorms and activations work on rows, one for each real token. For attention the
tokens are laid out in padded grids of examples of similar length. A batch may hold the examples of
several runs that are trained in one pass: each run's rows are contiguous, and it draws its dropout
masks for the same examples at once as when it is trained alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from .grids import Cuts, Draw, Grid, cuts_of, draws_of, padded, round_up
from .pieces import Pieces
from .tables import ROWS, Tables, on_gpu, to_device

# On a GPU, at most 2**(1 - WASTE) of 1,024 or more rows are unused. The value does not affect
# results.
WASTE = 5


@dataclass(frozen=True)
class Part:
    """The part of a batch that belongs to one run.

    Attributes:
        examples: its examples in the batch.
        rows: its rows of the hidden states: those of its tokens, then unused rows.
        tokens: how many of its rows are tokens.
    """

    examples: slice
    rows: slice
    tokens: int

    @property
    def spare(self) -> slice:
        """The unused rows."""
        return slice(self.rows.start + self.tokens, self.rows.stop)


@dataclass(frozen=True)
class Layout:
    """Where packed tokens are, and their attention grids.

    Hidden states have R rows; see ``Part``.

    Attributes:
        lengths: (B,) tokens of each example.
        parts: the part of each run.
        starts: (B,) the row of each example's first token.
        device: device of the batch.
        source: the layout of all tokens, for one of first tokens only; its grids have the same
            examples.
    """

    lengths: np.ndarray
    parts: tuple[Part, ...]
    starts: np.ndarray
    device: str | torch.device = "cpu"
    source: "Layout | None" = None

    @classmethod
    def from_lengths(
        cls,
        lengths: np.ndarray,
        device: str | torch.device = "cpu",
        sizes: Sequence[int] | None = None,
    ) -> "Layout":
        """The layout for examples of these lengths.

        Args:
            lengths: (B,), each 1 or more.
            device: device of the batch.
            sizes: number of examples of each run, one run after the other; None: one run.
        """
        parts = tuple(_parts(lengths, (len(lengths),) if sizes is None else sizes))
        if on_gpu(device):
            parts = (*parts[:-1], _widened(parts[-1]))
        starts = np.concatenate(
            [part.rows.start + starts_of(lengths[part.examples]) for part in parts]
        )
        return cls(lengths, parts, starts, device)

    @property
    def height(self) -> int:
        """R, the number of rows."""
        return self.parts[-1].rows.stop

    @cached_property
    def first_rows(self) -> Tensor:
        """The row of each example's first token, (B,)."""
        return to_device([self.starts], self.device)[0]

    @cached_property
    def first(self) -> "Layout":
        """The layout of the B first tokens, in grids with the same examples."""
        ones = np.ones_like(self.lengths)
        parts = tuple(
            Part(p.examples, p.examples, p.examples.stop - p.examples.start) for p in self.parts
        )
        return Layout(ones, parts, starts_of(ones), self.device, self)

    @cached_property
    def draws(self) -> list[Draw]:
        """Which examples' masks are drawn at once."""
        if self.source is not None:
            return self.source.draws
        return draws_of(self.lengths, [part.examples for part in self.parts])

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """Each example is in one of them."""
        if self.source is not None:
            return tuple(self._grid(grid.cuts) for grid in self.source.grids)
        return tuple(map(self._grid, cuts_of(self.lengths, self.draws)))

    def pieces(self, parts: int, heads: int, *, zeros: bool = False) -> Pieces:
        """Where the heads of rows with this many parts are; see ``Pieces``."""
        key = parts, heads, zeros
        if key not in self._pieces:
            found = Pieces.of(self.grids, self.height, self.device, parts, heads, zeros)
            self._pieces[key] = found
        return self._pieces[key]

    def biases(self, heads: int, dtype: torch.dtype) -> Sequence[Tensor | None]:
        """What is added to the scores of each grid, (b * h, 1, L); None: nothing is padded."""
        key = heads, dtype
        if key not in self._biases:
            self._biases[key] = [
                None
                if grid.bias is None
                else grid.bias.to(dtype).expand(-1, heads, -1, -1).flatten(0, 1)
                for grid in self.grids
            ]
        return self._biases[key]

    @cached_property
    def ends(self) -> Tensor:
        """The row after the last one of each run, (runs,) int32."""
        stops = np.array([part.rows.stop for part in self.parts], dtype=np.int32)
        return to_device([stops], self.device)[0]

    @cached_property
    def owners(self) -> Tensor:
        """The run of each row, and its number among the rows of its run: (R, 2) int32."""
        counts = [part.rows.stop - part.rows.start for part in self.parts]
        return to_device([_numbered(counts)], self.device)[0]

    @cached_property
    def token_owners(self) -> Tensor:
        """The run of each token, and its number among the tokens of its run: (T, 2) int32."""
        return to_device([_numbered([part.tokens for part in self.parts])], self.device)[0]

    @cached_property
    def tables(self) -> Tables:
        """The tables for attention between all tokens, or from first tokens to all."""
        return Tables.of(self, self.source or self)

    @cached_property
    def _pieces(self) -> dict[tuple[int, int, bool], Pieces]:
        return {}

    @cached_property
    def _biases(self) -> dict[tuple[int, torch.dtype], Sequence[Tensor | None]]:
        return {}

    def _grid(self, cuts: Cuts) -> Grid:
        examples = np.concatenate([self.draws[number].examples[own] for number, own in cuts])
        lengths = self.lengths[examples]
        longest = padded(int(lengths.max())) if self.source is None else 1
        column = np.arange(longest)
        real = column < lengths[:, None]  # (b, L)
        row = self.starts[examples, None] + column
        rows = np.where(real, row, self.height).astype(np.int32)
        bias = None
        if not real.all():
            bias = torch.from_numpy(np.where(real, np.float32(0), np.float32("-inf")))
            bias = bias[:, None, None].to(self.device)
        return Grid(examples, rows, bias, cuts)


def _parts(lengths: np.ndarray, sizes: Sequence[int]) -> Iterator[Part]:
    row = 0
    for stop, size in zip(accumulate(sizes), sizes, strict=True):
        examples = slice(stop - size, stop)
        tokens = int(lengths[examples].sum())
        rows = slice(row, row + round_up(tokens, ROWS))
        yield Part(examples, rows, tokens)
        row = rows.stop


def _widened(last: Part) -> Part:
    """The last part with unused rows at its end, so that few total numbers of rows occur.

    For each new number, a GPU's library of matrix products searches for the best kernel, which
    takes the host longer than the product.
    """
    height = last.rows.stop
    step = max(2 * ROWS, 1 << max(0, height.bit_length() - WASTE))
    return Part(last.examples, slice(last.rows.start, round_up(height, step)), last.tokens)


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """The position of each example's first token, for examples in a row: (B,)."""
    return np.cumsum(lengths) - lengths


def _numbered(counts: Sequence[int]) -> np.ndarray:
    """For ``counts[i]`` items of each group i: the group and the item's number in it, (n, 2)."""
    groups = np.repeat(np.arange(len(counts)), counts)
    numbers = np.concatenate([np.arange(count) for count in counts])
    return np.stack([groups, numbers], 1).astype(np.int32)
