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

# Of attention grids; any values compute the same. Below SHORT tokens, one grid costs less than the calls for several;
# CELLS keeps the score matrices of a grid in sizes that the allocator gives again without asking the system.
SHORT = 32
LIKE = 0.75
CELLS = 600_000


@dataclass(frozen=True)
class Grid:
    """Where the tokens of b examples of like length lie in a padded (b, L) grid, L the longest of them.

    rows (b * L,): packed position behind each cell (any valid one for a padding cell); cells (t,): the cell of each of
    their t real tokens; mask (b, 1, 1, L): true on real keys, None where all are equally long.
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
    """How a packed batch is cut into grids for attention: like lengths together, so that little is padded there too.

    to_packed (T,): for each packed token its place in the grids' tokens put one after the other; to_grids (T,): the
    inverse. Both None where there is one grid, whose tokens keep their order.
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
    """Indices of examples that share a grid, each at least LIKE of its longest, at most CELLS attention scores a head."""
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


class _Gather(torch.autograd.Function):
    """(T, D) -> (b * L, D). A padding cell repeats some real row; masked attention gives it no gradient. Rows outside of
    this grid get none from it, so the backward pass fills the grid's own rows of a zero tensor: no slow scatter-add."""

    @staticmethod
    def forward(ctx, x: Tensor, rows: Tensor, cells: Tensor) -> Tensor:
        ctx.save_for_backward(rows[cells], cells)
        ctx.size = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx, grad: Tensor):
        places, cells = ctx.saved_tensors
        real = grad.index_select(0, cells)
        if len(real) == ctx.size:  # one grid holds every token, in order
            return real, None, None
        return grad.new_zeros(ctx.size, grad.shape[1]).index_copy_(0, places, real), None, None


class _Permute(torch.autograd.Function):
    """Rows in another order; the backward pass gathers with the inverse."""

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


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
    flat = [x.transpose(1, 2).reshape(tokens, heads * size) for x in (query, key, value)]
    outs = []
    for grid in layout.grids:
        q, k, v = (
            _Gather.apply(x, grid.rows, grid.cells)
            .view(grid.batch, grid.longest, heads, size)
            .transpose(1, 2)
            for x in flat
        )  # (b, h, L, d)
        out = _attend(q, k, v, grid.mask, scaling, dropout)
        outs.append(
            _Pack.apply(
                out.transpose(1, 2).reshape(grid.batch * grid.longest, heads * size), grid.cells
            )
        )
    packed = (
        outs[0]
        if layout.to_packed is None
        else _Permute.apply(torch.cat(outs), layout.to_packed, layout.to_grids)
    )
    return packed.view(1, tokens, heads, size), None


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, dropout: float
) -> Tensor:
    """q, k, v (b, h, L, d), mask (b, 1, 1, L) -> (b, h, L, d)."""
    if dropout == 0 or q.device.type != "cpu":
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling
        )
    # SDPA's fused CPU kernel has no dropout; its fallback draws the slow random numbers that ours avoids
    scores = (q * scaling) @ k.transpose(-1, -2)  # (b, h, L, L)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return drop(scores.softmax(-1), dropout, None) @ v


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(
    ATTENTION, lambda *_, **__: None
)  # the layout masks; transformers builds no mask
