"""Packed batches: the real tokens of all examples, one after the other, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .layout import Layout, starts_of
from .tables import to_device


@dataclass
class Batch:
    """B packed examples with T tokens in all, of one or of several runs.

    Attributes:
        input_ids: (T,).
        position_ids: (T,).
        token_type_ids: (T,).
        lengths: (B,) tokens of each example.
        labels: first axis B, in the shape that the task's loss takes; None if unlabeled.
        index: (B,) indices of the examples in their dataset.
        hidden: (T, D) the output of the first ``depth`` layers if it is known, else None.
        depth: number of layers already applied to produce ``hidden``.
        sizes: number of examples of each run; None: one run.
    """

    input_ids: Tensor
    position_ids: Tensor
    token_type_ids: Tensor
    lengths: np.ndarray
    labels: Tensor | None = None
    index: Tensor | None = None
    hidden: Tensor | None = None
    depth: int = 0
    sizes: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def layout(self) -> Layout:
        """Where its tokens are, and its attention grids."""
        return Layout.from_lengths(self.lengths, self.input_ids.device, self.sizes)

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """(B + 1,) example i is tokens cu_seqlens[i] to cu_seqlens[i + 1] - 1."""
        bounds = np.concatenate([[0], np.cumsum(self.lengths)])
        return to_device([bounds], self.input_ids.device)[0]

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
        """Pack the examples of one run.

        Args:
            input_ids: token ids of each example, (n_i,).
            token_type_ids: token types of each example, (n_i,).
            first_position: position of a first token; RoBERTa counts from ``padding_idx + 1``.
            labels: labels of the examples, first axis B.
            index: indices of the examples in their dataset, (B,).
            device: device of the batch.
        """
        lengths = np.array([len(ids) for ids in input_ids])
        starts = np.repeat(starts_of(lengths), lengths)
        positions = np.arange(lengths.sum()) - starts + first_position
        tokens, types = (np.concatenate(x).astype(np.int64) for x in (input_ids, token_type_ids))
        ids, position_ids, kinds = to_device([tokens, positions, types], device)
        return cls(
            input_ids=ids,
            position_ids=position_ids,
            token_type_ids=kinds,
            lengths=lengths,
            labels=None if labels is None else to_device([labels], device)[0],
            index=None if index is None else torch.from_numpy(index),
        )

    @classmethod
    def merge(cls, batches: "Sequence[Batch]") -> "Batch":
        """The batches of several runs as one, without labels; a single batch is unchanged."""
        if len(batches) == 1:
            return batches[0]
        hidden = [batch.hidden for batch in batches if batch.hidden is not None]
        return cls(
            input_ids=torch.cat([batch.input_ids for batch in batches]),
            position_ids=torch.cat([batch.position_ids for batch in batches]),
            token_type_ids=torch.cat([batch.token_type_ids for batch in batches]),
            lengths=np.concatenate([batch.lengths for batch in batches]),
            hidden=torch.cat(hidden) if hidden else None,
            depth=batches[0].depth,
            sizes=tuple(len(batch) for batch in batches),
        )
