"""Linear layers that share an input as one product, plus low-rank updates of one or more runs.

It exists for what plain autograd does not do: the frozen weights of several layers are one matrix
in the precision of the products, in the memory layout that a CPU reads fastest; runs that are
trained in one pass share the product, while each run's update is computed only on its own rows;
unneeded gradients are not computed; and low-rank updates and their gradients are added in place.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .layers import Affine, Layers, Parts
from .product import Product, cat
from .updates import Gradients, updates_of


@torch.no_grad()
def stacked_bias(layers: Sequence[Affine], dtype: torch.dtype) -> Tensor | None:
    """The biases of linear layers (N,), zeros for a layer without; None: no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    filled = [
        layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        for layer in layers
    ]
    return cat(filled).to(dtype)


def affine(
    x: Tensor, layers: Layers, parts: Parts, product: Product, bias: Tensor | None
) -> Tensor:
    """Several linear layers that share an input, side by side: x (T, in) -> (T, N).

    Args:
        x: the input, in the precision of the products.
        layers: the layers of each run, with N outputs in all.
        parts: the rows of each run.
        product: product with the weights, which the runs share.
        bias: (N,), the shared biases, in the precision of ``x``; None without.
    """
    return _Affine.apply(x, layers, parts, product, bias, *layers.trained)


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layers: Layers,
        parts: Parts,
        product: Product,
        bias: Tensor | None,
        *trained: Tensor,
    ) -> Tensor:
        out = product.forward(x, bias)  # (T, N)
        for rows, own in zip(parts.rows, parts.biases or [None] * len(parts.rows), strict=True):
            if own is not None:
                out[rows] += own
        updates = updates_of(layers, parts, x)
        lows = [] if updates is None else updates.add_to(out, x)
        ctx.layers, ctx.parts, ctx.product, ctx.updates = layers, parts, product, updates
        ctx.save_for_backward(x if layers.needs_input else None, *lows)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients of x and of the trained parameters."""
        x, *lows = ctx.saved_tensors
        grad_x = ctx.product.backward(grad) if ctx.needs_input_grad[0] else None
        found: Gradients = {}
        if ctx.updates is not None:
            found = ctx.updates.gradients(grad, x, lows, grad_x)
        grads: list[Tensor | None] = []
        for run, (own, rows) in enumerate(zip(ctx.layers.runs, ctx.parts.rows, strict=True)):
            pieces: Sequence[Tensor | None] = [None] * len(own)
            if ctx.layers.trains_base:
                pieces = grad[rows].split(ctx.layers.widths, 1)
            for place, (layer, piece) in enumerate(zip(own, pieces, strict=True)):
                if piece is not None:
                    grads += _own_gradients(layer, piece, None if x is None else x[rows])
                grads += found.get((run, place), ())
        return grad_x, None, None, None, None, *(g for g in grads if g is not None)


def _own_gradients(
    layer: Affine, grad: Tensor, x: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a layer's weight and bias from that of its output (T, out)."""
    of_weight = of_bias = None
    if layer.weight.requires_grad:
        assert x is not None
        of_weight = grad.t() @ x
    if layer.bias is not None and layer.bias.requires_grad:
        of_bias = grad.sum(0, dtype=_sum_type(grad))
    return of_weight, of_bias


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
