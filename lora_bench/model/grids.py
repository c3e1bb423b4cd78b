"""Padded grids for attention: which examples share a grid, to limit padding.

A run draws its masks for few large sets of examples. Grids are finer, so that less is padded, and
hold the examples of several runs; a grid takes its part of the masks that were drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

# A CPU compiles its bf16 products for each new shape, which takes longer than a small product:
# lengths are rounded up to a multiple of LENGTHS, so that shapes recur. CELLS keeps the scores of a
# grid at sizes that the allocator reuses. The examples of a draw are halved if that saves more than
# DRAWN scores per head. LENGTHS, CELLS and DRAWN decide which random number an element gets.
LENGTHS = 16
CELLS = 600_000
DRAWN = 12_000
# Draws are halved into grids if that saves more than SPLIT scores per head, for a single run as for
# a group, so that rounding is the same. No random number depends on the value.
SPLIT = 3_000


# Where the examples of a grid are: pairs of the number of a draw and a slice of its examples.
Cuts = tuple[tuple[int, slice], ...]


@dataclass(frozen=True)
class Grid:
    """A padded grid of b examples of similar length.

    Attributes:
        examples: (b,) indices of its examples in the batch.
        rows: (b, L) int32, the row of each cell, R for a padding cell; L is the number of tokens of
            the longest example, rounded up.
        bias: (b, 1, 1, L), 0 on real tokens, -inf on padding; None: nothing is padded.
        cuts: where they are in the draws, in their order.
    """

    examples: np.ndarray
    rows: np.ndarray
    bias: Tensor | None
    cuts: Cuts

    @property
    def longest(self) -> int:
        """L, the number of positions in a row of the grid."""
        return self.rows.shape[1]


@dataclass(frozen=True)
class Draw:
    """Examples of one run whose masks are drawn at once.

    Attributes:
        run: number of the run.
        examples: (b,) indices of the examples in the batch, longest first.
        longest: number of tokens of the longest example, rounded up.
    """

    run: int
    examples: np.ndarray
    longest: int


def draws_of(lengths: np.ndarray, runs: Sequence[slice]) -> list[Draw]:
    """The draws of each run, in their order; they do not depend on the other runs.

    Args:
        lengths: (B,), tokens of each example.
        runs: the examples of each run.
    """
    return [
        Draw(run, part.start + examples, padded(int(lengths[part][examples[0]])))
        for run, part in enumerate(runs)
        for examples in _of_one_run(lengths[part])
    ]


def _of_one_run(lengths: np.ndarray) -> list[np.ndarray]:
    """Indices of the examples of each draw of one run, longest first.

    A draw is halved if that saves more than DRAWN scores per head, and cut to about CELLS.
    """
    by_length = np.argsort(-lengths, kind="stable")
    draws = []
    for own in _split(lengths[by_length], DRAWN):
        most = max(1, CELLS // int(lengths[by_length[own.start]]) ** 2)
        draws += [
            by_length[start : min(start + most, own.stop)]
            for start in range(own.start, own.stop, most)
        ]
    return draws


def cuts_of(lengths: np.ndarray, draws: Sequence[Draw]) -> list[Cuts]:
    """The examples of each grid: slices of the draws, merged if their rounded lengths are equal.

    Args:
        lengths: (B,), tokens of each example.
        draws: the draws of all runs.
    """
    by_length: dict[int, list[list[tuple[int, slice]]]] = {}
    for number, draw in enumerate(draws):
        own = lengths[draw.examples]
        for part in _split(own, SPLIT):
            longest = padded(int(own[part.start]))
            found = by_length.setdefault(longest, [[]])
            count = sum(p.stop - p.start for _, p in [*found[-1], (number, part)])
            if found[-1] and count * longest**2 > CELLS:
                found.append([])
            found[-1].append((number, part))
    return [
        tuple(cuts) for longest in sorted(by_length, reverse=True) for cuts in by_length[longest]
    ]


def _split(lengths: np.ndarray, limit: int) -> list[slice]:
    """Slices of examples with similar lengths.

    Args:
        lengths: (n,), tokens of each example, in descending order.
        limit: a slice is halved if that saves more than this many scores per head.
    """

    def split(part: slice) -> list[slice]:
        half = part.start + (part.stop - part.start) // 2
        if half == part.start:
            return [part]
        saved = (squares[part.start] - squares[half]) * (part.stop - half)
        if saved <= limit:
            return [part]
        return split(slice(part.start, half)) + split(slice(half, part.stop))

    squares = lengths.astype(np.int64) ** 2
    return split(slice(0, len(lengths)))


def padded(length: int) -> int:
    """The length of a grid whose longest example has ``length`` tokens."""
    return round_up(length, LENGTHS)


def round_up(count: int, step: int) -> int:
    """The lowest multiple of ``step`` that is not below ``count``."""
    return -(-count // step) * step
