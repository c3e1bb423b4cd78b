"""Attention within each packed example, and its registration in transformers."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from .dropout import DropoutStream, keep, rescale
from .functions import DropoutAttention
from .fused import SPAN, FusedAttention, Mask, usable
from .layout import Grid, Layout
from .rows import Rows

ATTENTION = "packed"


class _ToGrids(torch.autograd.Function):
    """(R, parts * h * d) -> (b, h, L, d) for each part, grid after grid.

    A padding cell is zero and passes no gradient back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: Layout, parts: int, heads: int) -> tuple[Tensor, ...]:
        ctx.layout, ctx.parts, ctx.width = layout, parts, x.shape[1]
        cells = _cells(x, layout)  # (C, parts * h * d)
        outs: list[Tensor] = []
        for grid in layout.grids:
            block = cells[grid.cells].view(len(grid.examples), grid.longest, parts, heads, -1)
            outs += block.permute(2, 0, 3, 1, 4).contiguous().unbind(0)  # parts x (b, h, L, d)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        flat = grads[0].new_empty(len(ctx.layout.rows), ctx.width)
        for i, grid in enumerate(ctx.layout.grids):
            block = flat[grid.cells].view(len(grid.examples), grid.longest, ctx.parts, -1)
            for part, grad in enumerate(grads[ctx.parts * i : ctx.parts * (i + 1)]):
                out = block[:, :, part].unflatten(-1, (grad.shape[1], grad.shape[3]))
                out.copy_(grad.transpose(1, 2))  # (b, L, h, d)
        return _rows(flat, ctx.layout), None, None, None


class _FromGrids(torch.autograd.Function):
    """(b, h, L, d) for each grid -> (R, h * d)."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, *blocks: Tensor) -> Tensor:
        ctx.layout, (ctx.heads, _, size) = layout, blocks[0].shape[1:]
        flat = blocks[0].new_empty(len(layout.rows), ctx.heads * size)
        for grid, block in zip(layout.grids, blocks, strict=True):
            b, h, length, d = block.shape
            flat[grid.cells].view(b, length, h, d).copy_(block.transpose(1, 2))
        return _rows(flat, layout)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        cells = _cells(grad, ctx.layout)  # (C, h * d)
        blocks = [
            cells[grid.cells]
            .view(len(grid.examples), grid.longest, ctx.heads, -1)
            .transpose(1, 2)
            .contiguous()
            for grid in ctx.layout.grids
        ]
        return None, *blocks


def _rows(cells: Tensor, layout: Layout) -> Tensor:
    """(C, n) -> (R, n), zeros in rows without a token."""
    out = cells.index_select(0, layout.cells)
    for part in layout.parts:
        out[part.spare] = 0
    return out


def _cells(x: Tensor, layout: Layout) -> Tensor:
    """(R, n) -> (C, n), zeros in padding cells."""
    # Gathering rows takes an eighth of the time of scattering them (index_copy_).
    return torch.cat([x, x.new_zeros(1, x.shape[1])]).index_select(0, layout.rows)


def attend(
    queries: Tensor,
    keys_values: Tensor | None,
    rows: Rows,
    heads: int,
    scaling: float,
    mask: Mask,
) -> Tensor:
    """Self-attention within each example: (R, D), or (B, D) for queries of first tokens only.

    Args:
        queries: (R, 3 D), queries, keys and values of all tokens; or (B, D), queries of first
            tokens only.
        keys_values: keys and values of all tokens (R, 2 D) in the second case, else None.
        rows: rows of all tokens.
        heads: h.
        scaling: factor on the scores.
        mask: dropout of the attention weights.
    """
    layout = rows.layout
    if usable(queries) and layout.lengths.max() <= SPAN:
        tables = layout.tables if keys_values is None else layout.first.tables
        return FusedAttention.apply(queries, keys_values, tables, heads, scaling, mask)
    if keys_values is None:
        flat = _ToGrids.apply(queries, layout, 3, heads)
        triples = list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    else:
        flat = _ToGrids.apply(keys_values, layout, 2, heads)
        asking = _ToGrids.apply(queries, layout.first, 1, heads)
        triples = list(zip(asking, flat[::2], flat[1::2], strict=True))
    outs = [
        _attend(*triple, grid, scaling, mask.p, rows.streams)
        for triple, grid in zip(triples, layout.grids, strict=True)
    ]
    return _FromGrids.apply(layout if keys_values is None else layout.first, *outs)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Grid,
    scaling: float,
    p: float,
    streams: Sequence[DropoutStream | None],
) -> Tensor:
    """q (b, h, M, d); k, v (b, h, L, d) -> (b, h, M, d)."""
    bias = None if grid.bias is None else grid.bias.to(q.dtype)
    if p == 0:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling)
    parts = [(part, streams[run]) for run, part in grid.parts]
    mask = keep(torch.Size([*q.shape[:3], k.shape[2]]), p, q, parts)
    return DropoutAttention.apply(q, k, v, bias, mask, scaling, rescale(p))


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
    **_unused: Any,
) -> tuple[Tensor, None]:
    """``attend`` as transformers calls it: (1, h, T, d) each -> (1, T, h, d), no weights.

    T is R where the hidden states come from the encoder pass.
    """
    heads, tokens, size = query.shape[1:]
    flat = torch.stack([query[0], key[0], value[0]]).permute(2, 0, 1, 3)  # (T or R, 3, h, d)
    rows = F.pad(flat.reshape(tokens, -1), (0, 0, 0, layout.height - tokens))  # (R, 3 D)
    of_pass = Rows.of(layout, [stream], drops=dropout > 0)
    out = attend(rows, None, of_pass, heads, scaling, Mask(of_pass.keys, 0, dropout))
    return out[:tokens].view(1, tokens, heads, size), None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)  # the layout masks
