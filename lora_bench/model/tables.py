"""Where packed tokens are, as the GPU's kernels read it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .layout import Layout

# The number of rows of each run is a multiple of ROWS, so that the shapes of products recur and no
# tile of a GPU's product spans two runs. ROWS must be a power of two, at least 16. The value does
# not affect results.
ROWS = 32
ALIGNMENT = 16  # bytes; Triton compiles a kernel again for tensors with another alignment
GPU = "cuda"  # the kind of device that the kernels run on
BLOCKS = (16, 32, 64)  # queries, or keys, of one tile of attention


@dataclass(frozen=True)
class Tables:
    """The examples of a batch for attention; all integers are int32.

    Attributes:
        examples: (B, 6) first query row and number of queries, first key row and number of keys,
            the run, and the first query's place among the rows of its run.
        query_tiles: (n, 2) example and first query of each tile.
        key_tiles: (m, 2) example and first key of each tile.
        block: queries or keys of a tile.
        height: number of query rows.
    """

    examples: Tensor
    query_tiles: Tensor
    key_tiles: Tensor
    block: int
    height: int

    @classmethod
    def of(cls, queries: "Layout", keys: "Layout") -> "Tables":
        """The tables for queries and keys of the same examples, on the layouts' device."""
        run = np.repeat(np.arange(len(keys.parts)), [_count(p.examples) for p in keys.parts])
        place = queries.starts - np.array([p.rows.start for p in queries.parts])[run]
        columns = (queries.starts, queries.lengths, keys.starts, keys.lengths, run, place)
        longest = int(keys.lengths.max())
        block = next((size for size in BLOCKS if longest <= size), BLOCKS[-1])
        parts = [np.stack(columns, 1), _tiles(queries.lengths, block), _tiles(keys.lengths, block)]
        examples, asked, keyed = to_device([x.astype(np.int32) for x in parts], keys.device)
        return cls(examples, asked, keyed, block, queries.height)


def _tiles(lengths: np.ndarray, block: int) -> np.ndarray:
    """(n, 2): example, and its first token, of each tile of ``block`` tokens."""
    counts = -(-lengths // block)
    example = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(example)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([example, number * block], 1)


def _count(part: slice) -> int:
    return part.stop - part.start


def on_gpu(device: str | torch.device) -> bool:
    """Whether a device is a GPU on which the kernels may run."""
    return torch.device(device).type == GPU


def to_device(arrays: list[np.ndarray], device: str | torch.device) -> list[Tensor]:
    """Arrays of one type on a device, in one transfer for which the host does not wait.

    Args:
        arrays: arrays of any shape.
        device: device of the tensors.
    """
    step = ALIGNMENT // arrays[0].itemsize
    sizes = [-(-array.size // step) * step for array in arrays]
    flat = torch.zeros(sum(sizes), dtype=torch.from_numpy(arrays[0]).dtype)
    for piece, array in zip(flat.split(sizes), arrays, strict=True):
        piece.numpy()[: array.size] = array.ravel()
    if torch.device(device).type == "cuda":  # the host need not wait for pinned memory
        flat = flat.pin_memory()
    moved = flat.to(device, non_blocking=True).split(sizes)
    return [x[: array.size].view(array.shape) for x, array in zip(moved, arrays, strict=True)]
