"""Attention within each packed example, and its registration in transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from .dropout import DropoutStream, draw_mask, rescale
from .fused import SPAN, FusedAttention, Mask, usable
from .layout import Layout
from .pieces import Pieces
from .rows import Rows

ATTENTION = "packed"


@dataclass(frozen=True)
class _Settings:
    """What attention needs to know besides its inputs.

    Attributes:
        layout: where all tokens are.
        heads: h.
        scaling: factor on the scores.
        rescale: c, what kept weights are multiplied by.
    """

    layout: Layout
    heads: int
    scaling: float
    rescale: float

    def sources(self, first_only: bool) -> tuple[Pieces, ...]:
        """The pieces of the inputs, of which the first have the queries."""
        if first_only:
            return self.layout.first.pieces(1, self.heads), self.layout.pieces(2, self.heads)
        return (self.layout.pieces(3, self.heads),)

    def outputs(self, first_only: bool) -> Pieces:
        """The pieces of the output."""
        return (self.layout.first if first_only else self.layout).pieces(1, self.heads, zeros=True)


class _GridAttention(torch.autograd.Function):
    """``(c softmax(scaling q k^T + bias) * keep) v`` in padded grids, over n = b * h heads.

    SDPA's fused CPU kernel has no dropout; its fallback draws torch's slow random numbers. Without
    dropout the forward pass is SDPA, and the backward pass recomputes the weights.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys_values: Tensor | None,
        masks: Sequence[Tensor | None],
        settings: _Settings,
    ) -> Tensor:
        """Inputs and result as those of ``attend``.

        Args:
            ctx: keeps what the backward pass needs.
            queries: see ``attend``.
            keys_values: see ``attend``.
            masks: for each grid the mask of the weights, 0 and 1, (b, h, M, L); None: no dropout.
            settings: everything else.
        """
        inputs = (queries,) if keys_values is None else (queries, keys_values)
        layout, first_only = settings.layout, keys_values is not None
        sources, target = settings.sources(first_only), settings.outputs(first_only)
        moved = [pieces.to_grids(x) for pieces, x in zip(sources, inputs, strict=True)]
        flat, outs = target.empty(moved[0][0])
        biases = layout.biases(settings.heads, queries.dtype)
        saved = []
        for i, ((out,), mask, bias) in enumerate(zip(outs, masks, biases, strict=True)):
            q, k, v = (part for blocks in moved for part in blocks[i])  # (n, M or L, d)
            weights = None
            if mask is None:
                out.copy_(_without_dropout(q, k, v, bias, settings))
            else:
                weights = _weights(q, k, bias, settings)
                _bmm(weights * mask.flatten(0, 1), v, settings.rescale, out)
            saved += [q, k, v, weights, mask]
        ctx.save_for_backward(*saved)
        ctx.settings, ctx.first_only = settings, first_only
        return target.to_rows(flat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients of the tensor inputs."""
        settings, saved = ctx.settings, ctx.saved_tensors
        sources = settings.sources(ctx.first_only)
        grad_outs = settings.outputs(ctx.first_only).to_grids(grad)
        made = [pieces.empty(saved[0]) for pieces in sources]
        biases = settings.layout.biases(settings.heads, grad.dtype)
        for i, ((grad_out,), bias) in enumerate(zip(grad_outs, biases, strict=True)):
            q, k, v, weights, mask = saved[5 * i : 5 * i + 5]
            grad_q, grad_k, grad_v = (part for _, blocks in made for part in blocks[i])
            if mask is None:
                dropped = weights = _weights(q, k, bias, settings)
                grad_weights = torch.bmm(grad_out, v.transpose(1, 2))
            else:
                mask = mask.flatten(0, 1)
                grad_out.mul_(settings.rescale)  # (n, M, d)
                dropped = weights * mask
                grad_weights = torch.bmm(grad_out, v.transpose(1, 2)).mul_(mask)
            torch.bmm(dropped.transpose(1, 2), grad_out, out=grad_v)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            _bmm(grad_scores, k, settings.scaling, grad_q)
            _bmm(grad_scores.transpose(1, 2), q, settings.scaling, grad_k)
        grads = [pieces.to_rows(flat) for pieces, (flat, _) in zip(sources, made, strict=True)]
        return *grads, *[None] * (4 - len(grads))


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
    """q (n, M, d); k (n, L, d); bias (n, 1, L) -> the weights before dropout (n, M, L)."""
    keys = k.transpose(1, 2)
    if bias is not None:  # the product adds it, without another pass over the scores
        return torch.baddbmm(bias, q, keys, alpha=settings.scaling).softmax(-1)
    scores = q.new_empty(len(q), q.shape[1], k.shape[1])
    _bmm(q, keys, settings.scaling, scores)
    return scores.softmax(-1)


def _without_dropout(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, settings: _Settings
) -> Tensor:
    """q (n, M, d); k, v (n, L, d); bias (n, 1, L) -> (n, M, d)."""
    by_head = (-1, settings.heads)
    bias = None if bias is None else bias.unflatten(0, by_head)
    q, k, v = (x.unflatten(0, by_head) for x in (q, k, v))  # (b, h, M or L, d)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=settings.scaling)
    return out.flatten(0, 1)


def _bmm(x: Tensor, y: Tensor, scale: float, out: Tensor) -> None:
    """Write batched ``scale x y`` to ``out``, with the scale applied before rounding."""
    torch.baddbmm(out, x, y, beta=0, alpha=scale, out=out)


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
    masks = _masks(queries, rows, heads, keys_values is not None, mask.p)
    settings = _Settings(layout, heads, scaling, rescale(mask.p))
    return _GridAttention.apply(queries, keys_values, masks, settings)


def _masks(like: Tensor, rows: Rows, heads: int, first_only: bool, p: float) -> list[Tensor | None]:
    """The mask of each grid's attention weights (b, h, M, L), cut from what the runs draw."""
    layout = rows.layout
    if p == 0:
        return [None] * len(layout.grids)
    drawn = []
    for draw in layout.draws:
        queries = 1 if first_only else draw.longest
        shape = torch.Size([len(draw.examples), heads, queries, draw.longest])
        drawn.append(draw_mask(shape, p, like, rows.streams[draw.run]))
    masks: list[Tensor | None] = []
    for grid in layout.grids:
        size = grid.longest
        parts = [drawn[number][own, :, :size, :size] for number, own in grid.cuts]
        mask = like.new_empty(len(grid.examples), *parts[0].shape[1:])
        masks.append(torch.cat(parts, out=mask))
    return masks


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
