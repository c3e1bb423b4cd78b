"""Packed batches: every example's real tokens in one row, no padding outside of attention.

Linear layers, LayerNorms and activations then work on real tokens only. transformers' own RobertaModel runs unchanged on
``(1, T)`` input, because attention is a function that this module registers through ``AttentionInterface``: it unpacks
queries, keys and values to ``(B, h, L, d)``, attends within each example, and packs the result again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from .dropout import dropout as drop

ATTENTION = "packed"


@dataclass(frozen=True)
class Layout:
    """Where the T packed tokens of B examples lie in a padded (B, L) grid, L the longest example.

    rows (B * L,): packed position behind each cell (any valid one for a padding cell); cells (T,): the cell of each
    packed token; mask (B, 1, 1, L): true on real keys, None where all examples are equally long.
    """

    batch: int
    longest: int
    rows: Tensor
    cells: Tensor
    mask: Tensor | None

    @classmethod
    def from_lengths(cls, lengths: Tensor) -> "Layout":
        """lengths (B,), each 1 or more."""
        batch, longest = len(lengths), int(lengths.max())
        starts = F.pad(lengths.cumsum(0), (1, 0))[:-1]
        column = torch.arange(longest, device=lengths.device)
        real = column < lengths[:, None]  # (B, L)
        rows = torch.where(real, starts[:, None] + column, 0).flatten()
        mask = None if bool(real.all()) else real[:, None, None, :]
        return cls(batch, longest, rows, real.flatten().nonzero()[:, 0], mask)


@dataclass
class Batch:
    """B packed examples with T tokens in all.

    input_ids, position_ids, token_type_ids (T,); cu_seqlens (B + 1,): example i is tokens cu_seqlens[i] to
    cu_seqlens[i + 1] - 1; labels: (B,) or (B, 2), or None; index (B,): the examples' places in their data set.
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
        """Pack examples, each an array of token ids (n_i,) and one of token types (n_i,).

        Args: first_position: position of a first token; RoBERTa counts from ``padding_idx + 1``.
        """
        lengths = torch.tensor([len(ids) for ids in input_ids])
        positions = torch.cat([torch.arange(first_position, first_position + n) for n in lengths.tolist()])
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


class _Unpack(torch.autograd.Function):
    """(T, D) -> (B * L, D). A padding cell repeats some real row; masked attention gives it no gradient, so the
    backward pass is a plain gather instead of index_select's slow scatter-add."""

    @staticmethod
    def forward(ctx, x: Tensor, rows: Tensor, cells: Tensor) -> Tensor:
        ctx.save_for_backward(cells)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (cells,) = ctx.saved_tensors
        return grad.index_select(0, cells), None, None


class _Pack(torch.autograd.Function):
    """(B * L, D) -> (T, D), padding cells left out; their gradient is zero."""

    @staticmethod
    def forward(ctx, x: Tensor, cells: Tensor) -> Tensor:
        ctx.save_for_backward(cells)
        ctx.size = len(x)
        return x.index_select(0, cells)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (cells,) = ctx.saved_tensors
        return grad.new_zeros(ctx.size, grad.shape[1]).index_copy_(0, cells, grad), None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float,
    dropout: float = 0.0,
    **_,
) -> tuple[Tensor, None]:
    """Attention within each packed example: query, key, value (1, h, T, d) -> (1, T, h, d), no weights."""
    _, heads, tokens, size = query.shape

    def unpack(x: Tensor) -> Tensor:  # (1, h, T, d) -> (B, h, L, d)
        flat = x.transpose(1, 2).reshape(tokens, heads * size)
        grid = _Unpack.apply(flat, layout.rows, layout.cells)
        return grid.view(layout.batch, layout.longest, heads, size).transpose(1, 2)

    q, k, v = unpack(query), unpack(key), unpack(value)
    if dropout > 0 and query.device.type == "cpu":
        # SDPA's fused CPU kernel has no dropout; its fallback draws the slow random numbers that ours avoids
        scores = (q * scaling) @ k.transpose(-1, -2)  # (B, h, L, L)
        if layout.mask is not None:
            scores = scores.masked_fill(~layout.mask, float("-inf"))
        out = drop(scores.softmax(-1), dropout) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.mask, dropout_p=dropout, scale=scaling)
    flat = out.transpose(1, 2).reshape(layout.batch * layout.longest, heads * size)
    return _Pack.apply(flat, layout.cells).view(1, tokens, heads, size), None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)  # the layout masks; transformers builds no mask
