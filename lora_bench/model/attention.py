"""Attention within each example of a packed batch, for transformers' own RobertaModel.

The model runs unchanged on ``(1, T)`` input: attention is a function that this module registers
through ``AttentionInterface``. It unpacks queries, keys and values to ``(B, h, L, d)``, attends
within each example, and packs the result again.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from .dropout import DropoutStream
from .dropout import dropout as drop
from .packing import Layout

ATTENTION = "packed"


class _Gather(torch.autograd.Function):
    """(T, D) -> (b * L, D).

    A padding cell repeats some real row; masked attention gives it no gradient. Rows outside of
    this grid get no gradient from it either, so the backward pass fills the grid's own rows of a
    zero tensor, which avoids a slow scatter-add.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, cells: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(rows[cells], cells)
        ctx.size = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        places, cells = ctx.saved_tensors
        real = grad.index_select(0, cells)
        if len(real) == ctx.size:  # one grid holds every token, in order
            return real, None, None
        return grad.new_zeros(ctx.size, grad.shape[1]).index_copy_(0, places, real), None, None


class _Permute(torch.autograd.Function):
    """Rows in another order; the backward pass gathers with the inverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


class _Pack(torch.autograd.Function):
    """(B * L, D) -> (T, D), padding cells left out; their gradient is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(cells)
        ctx.size = len(x)
        return x.index_select(0, cells)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
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
    stream: DropoutStream | None = None,
    **_kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each packed example: query, key, value (1, h, T, d) -> (1, T, h, d)."""
    heads, tokens, size = query.shape[1:]
    flat = [x.transpose(1, 2).reshape(tokens, heads * size) for x in (query, key, value)]
    outs = []
    for grid in layout.grids:
        q, k, v = (
            _Gather.apply(x, grid.rows, grid.cells)
            .view(grid.batch, grid.longest, heads, size)
            .transpose(1, 2)
            for x in flat
        )  # (b, h, L, d)
        if dropout == 0 or stream is None:
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=grid.mask, dropout_p=dropout, scale=scaling
            )
        else:
            out = drop(_probabilities(q, k, grid.mask, scaling), dropout, stream) @ v
        cells = out.transpose(1, 2).reshape(grid.batch * grid.longest, heads * size)
        outs.append(_Pack.apply(cells, grid.cells))
    if layout.to_packed is None:
        packed = outs[0]
    else:
        packed = _Permute.apply(torch.cat(outs), layout.to_packed, layout.to_grids)
    return packed.view(1, tokens, heads, size), None


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """q, k (b, h, L, d), mask (b, 1, 1, L) -> (b, h, L, L).

    SDPA takes no masks of a run's stream, and its fused kernel for CPUs has no dropout at all.
    """
    scores = (q * scaling) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1)


AttentionInterface.register(ATTENTION, packed_attention)
# the layout masks; transformers builds no mask
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)
