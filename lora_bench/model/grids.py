"""Padded grids for attention: which examples share one, so that little is padded."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from torch import Tensor

# The values do not affect results. A CPU compiles its bf16 products for each new shape, which takes
# longer than a small product: lengths are rounded up to a multiple of LENGTHS, so that shapes
# recur. Halving a grid pays off if it saves SPLIT scores per head. CELLS keeps the scores of a grid
# at sizes that the allocator reuses.
LENGTHS = 16
SPLIT = 12_000
CELLS = 600_000


@dataclass(frozen=True)
class Grid:
    """A padded grid of b examples of similar length.

    Attributes:
        examples: (b,) indices of its examples in the batch.
        rows: (b, L) int32, the row of each cell, R for a padding cell; L is the number of tokens of
            the longest example, rounded up.
        bias: (b, 1, 1, L), 0 on real tokens, -inf on padding; None: nothing is padded.
        parts: (run, part of its examples) pairs; a run draws a mask for each part.
    """

    examples: np.ndarray
    rows: np.ndarray
    bias: Tensor | None
    parts: tuple[tuple[int, slice], ...]

    @property
    def longest(self) -> int:
        """L."""
        return self.rows.shape[1]


@dataclass(frozen=True)
class Group:
    """The examples of a grid, and which of them belong to which run."""

    examples: np.ndarray
    parts: tuple[tuple[int, slice], ...]


def grouped(lengths: np.ndarray, runs: Sequence[slice]) -> list[Group]:
    """The examples of each grid.

    Args:
        lengths: (B,), tokens of each example.
        runs: the examples of each run.
    """
    groups = [
        (run, part.start + group)
        for run, part in enumerate(runs)
        for group in _of_one_run(lengths[part])
    ]
    return _merged(groups, lengths)


def _merged(groups: list[tuple[int, np.ndarray]], lengths: np.ndarray) -> list[Group]:
    """Groups merged if their rounded lengths are equal, as far as CELLS allows.

    Args:
        groups: run, and indices of its examples, longest first.
        lengths: (B,), lengths of all examples.
    """
    by_length: dict[int, list[list[tuple[int, np.ndarray]]]] = {}
    for run, examples in groups:
        longest = padded(int(lengths[examples[0]]))
        found = by_length.setdefault(longest, [[]])
        cells = (sum(len(e) for _, e in found[-1]) + len(examples)) * longest**2
        if found[-1] and cells > CELLS:
            found.append([])
        found[-1].append((run, examples))
    return [
        _joined(joined)
        for longest in sorted(by_length, reverse=True)
        for joined in by_length[longest]
    ]


def _joined(groups: list[tuple[int, np.ndarray]]) -> Group:
    stops = accumulate(len(examples) for _, examples in groups)
    parts = tuple(
        (run, slice(stop - len(examples), stop))
        for (run, examples), stop in zip(groups, stops, strict=True)
    )
    return Group(np.concatenate([examples for _, examples in groups]), parts)


def _of_one_run(lengths: np.ndarray) -> list[np.ndarray]:
    """Indices of the examples of each grid of one run, longest first.

    A grid is halved if that saves more than SPLIT scores per head, and cut to at most CELLS.
    """
    by_length = np.argsort(-lengths, kind="stable")
    groups = []
    for part in _split(by_length, lengths[by_length].astype(np.int64) ** 2):
        most = max(1, CELLS // int(lengths[part[0]]) ** 2)
        groups += [part[start : start + most] for start in range(0, len(part), most)]
    return groups


def _split(examples: np.ndarray, squares: np.ndarray) -> list[np.ndarray]:
    """Split examples by similar length; squares (n,) are their squared lengths, descending."""
    half = len(examples) // 2
    if half == 0 or (squares[0] - squares[half]) * (len(examples) - half) <= SPLIT:
        return [examples]
    return _split(examples[:half], squares[:half]) + _split(examples[half:], squares[half:])


def padded(length: int) -> int:
    """The length of a grid whose longest example has ``length`` tokens."""
    return round_up(length, LENGTHS)


def round_up(count: int, step: int) -> int:
    """The lowest multiple of ``step`` that is not below ``count``."""
    return -(-count // step) * step
