"""Linear layers with one input as one matrix product, plus low-rank updates of one or more runs.

It exists for what plain autograd does not do: the frozen weights of several layers are one matrix
in the precision of the products, in the memory layout that a CPU reads fastest; runs that are
trained in one pass share the product, while each run's update is computed only on its own rows;
unneeded gradients are not computed; and low-rank updates and their gradients are added in place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .product import Product, stacked


@dataclass(frozen=True)
class Affine:
    """One linear layer of one run: ``x W^T + bias + scaling (c x * keep) A^T B^T``.

    Args:
        weight: (out, in).
        bias: (out,) or None.
        a: (rank, in) or None: no update.
        b: (out, rank) or None.
        scaling: scaling of the update.
        keep: (T, in), the update's own dropout mask of 0 and 1, or None.
        rescale: c, what kept elements are multiplied by.
    """

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None = None
    b: Tensor | None = None
    scaling: float = 0.0
    keep: Tensor | None = None
    rescale: float = 1.0

    @property
    def rank(self) -> int:
        """Rank of the update, 0 without one."""
        return 0 if self.a is None else len(self.a)

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that need a gradient, in the order of the fields."""
        parameters = (self.weight, self.bias, self.a, self.b)
        return [p for p in parameters if p is not None and p.requires_grad]

    @property
    def needs_input(self) -> bool:
        """Whether the gradient of a parameter is computed from the input."""
        return self.weight.requires_grad or (self.a is not None and self.a.requires_grad)


@dataclass(frozen=True)
class Segment:
    """The rows of one run, with its linear layers.

    Args:
        rows: its rows of the input.
        layers: its linear layers; layer i has out_i outputs.
        bias: (N,), the biases of the layers, if they differ from those of the other runs.
    """

    rows: slice
    layers: Sequence[Affine]
    bias: Tensor | None = None


@torch.no_grad()
def stacked_bias(layers: Sequence[Affine], dtype: torch.dtype) -> Tensor | None:
    """The biases of linear layers (N,), zeros for a layer without; None: no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    filled = [
        layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        for layer in layers
    ]
    return stacked(filled).to(dtype)


def affine(x: Tensor, segments: Sequence[Segment], product: Product, bias: Tensor | None) -> Tensor:
    """Several linear layers with one input, side by side: x (T, in) -> (T, N).

    Args:
        x: the input, in the precision of the products.
        segments: one for each run; together they cover every row.
        product: product with the weights, which the segments share.
        bias: (N,), the shared biases, in the precision of ``x``; None without.
    """
    trained = [p for segment in segments for layer in segment.layers for p in layer.trained]
    return _Affine.apply(x, segments, product, bias, *trained)


class _Affine(torch.autograd.Function):
    """The updates of a segment's layers are stacked: R is the sum of their ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        segments: Sequence[Segment],
        product: Product,
        bias: Tensor | None,
        *trained: Tensor,
    ) -> Tensor:
        out = product.forward(x, bias)  # (T, N)
        ctx.segments, ctx.product = segments, product
        updates: list[Tensor | None] = []  # three for each segment
        for segment in segments:
            part = out[segment.rows]
            if segment.bias is not None:
                part += segment.bias
            low = a = b = None
            if any(layer.rank for layer in segment.layers):
                a, b = _stacked_updates(segment.layers, product.widths, x)  # (R, in), (R, N)
                low = _reduced(x[segment.rows], segment.layers, a)  # (T, R)
                part.addmm_(low, b)
            updates += [low, a, b]
        needs_x = any(layer.needs_input for segment in segments for layer in segment.layers)
        ctx.save_for_backward(x if needs_x else None, *updates)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients of x and of the trained parameters."""
        x, *updates = ctx.saved_tensors
        grad_x = ctx.product.backward(grad) if ctx.needs_input_grad[0] else None
        grads: list[Tensor] = []
        for i, segment in enumerate(ctx.segments):
            rows = segment.rows
            grads += _gradients(
                segment.layers,
                ctx.product.widths,
                grad[rows],
                None if x is None else x[rows],
                None if grad_x is None else grad_x[rows],
                updates[3 * i : 3 * i + 3],
            )
        return grad_x, None, None, None, *grads


def _gradients(
    layers: Sequence[Affine],
    widths: Sequence[int],
    grad: Tensor,
    x: Tensor | None,
    grad_x: Tensor | None,
    update: Sequence[Tensor | None],
) -> Iterator[Tensor]:
    """Gradients of a segment's trained parameters, in order; adds to the gradient of its input.

    Args:
        layers: layers of the segment.
        widths: number of outputs of each layer.
        grad: (T, N), gradient of the output.
        x: (T, in), if a parameter's gradient needs it.
        grad_x: (T, in); the part of the update is added to it.
        update: low (T, R), A (R, in), B (R, N); all None without an update.
    """
    low, a, b = update
    grad_a = grad_b = None
    if low is not None and a is not None and b is not None:
        grad_low = grad @ b.t()  # (T, R)
        if grad_x is not None:
            _add_reduced_gradient(grad_x, grad_low, layers, a)
        if any(layer.a is not None and layer.a.requires_grad for layer in layers):
            assert x is not None
            grad_a = _grad_of_a(x, grad_low, layers)  # (R, in)
        if any(layer.b is not None and layer.b.requires_grad for layer in layers):
            grad_b = low.t() @ grad  # (R, N); of low rank first, its product is the faster one
    rank = column = 0
    for layer, width in zip(layers, widths, strict=True):
        ranks, columns = slice(rank, rank + layer.rank), slice(column, column + width)
        g = grad[:, columns]
        if layer.weight.requires_grad:
            assert x is not None
            yield g.t() @ x
        if layer.bias is not None and layer.bias.requires_grad:
            yield g.sum(0, dtype=_sum_type(g))
        if layer.a is not None and layer.a.requires_grad:
            assert grad_a is not None
            yield grad_a[ranks]
        if layer.b is not None and layer.b.requires_grad:
            assert grad_b is not None
            yield (grad_b[ranks, columns] * layer.scaling).t()
        rank, column = ranks.stop, columns.stop


def _stacked_updates(
    layers: Sequence[Affine], widths: Sequence[int], x: Tensor
) -> tuple[Tensor, Tensor]:
    """All A (R, in), and all B, scaled and transposed, as one block-diagonal matrix (R, N).

    Both are in the precision of x.
    """
    total = sum(layer.rank for layer in layers)
    b = x.new_zeros(total, sum(widths))
    rank = column = 0
    for layer, width in zip(layers, widths, strict=True):
        if layer.b is not None:
            block = b[rank : rank + layer.rank, column : column + width]
            torch.mul(layer.b.t(), layer.scaling, out=block)
        rank, column = rank + layer.rank, column + width
    rows = [layer.a.to(x.dtype) for layer in layers if layer.a is not None]
    return stacked(rows), b


def _reduced(x: Tensor, layers: Sequence[Affine], a: Tensor) -> Tensor:
    """x (T, in) -> (T, R): the inner activations of all updates."""
    if all(layer.keep is None for layer in layers):
        return x @ a.t()
    return torch.cat([_dropped(x, layer) @ part.t() for layer, part in _updated(layers, a)], 1)


def _add_reduced_gradient(
    grad_x: Tensor, grad_low: Tensor, layers: Sequence[Affine], a: Tensor
) -> None:
    """Add the gradients of the inner activations (T, R) to the gradient of x (T, in)."""
    if all(layer.keep is None for layer in layers):
        grad_x.addmm_(grad_low, a)
        return
    parts = grad_low.split([layer.rank for layer in layers if layer.rank], 1)
    for (layer, part), g in zip(_updated(layers, a), parts, strict=True):
        if layer.keep is None:
            grad_x.addmm_(g, part)
        else:
            grad_x.addcmul_(g @ part, layer.keep, value=layer.rescale)


def _grad_of_a(x: Tensor, grad_low: Tensor, layers: Sequence[Affine]) -> Tensor:
    """(R, in)."""
    if all(layer.keep is None for layer in layers):
        return grad_low.t() @ x
    return torch.cat([part @ _dropped(x, layer) for layer, part in _updated(layers, grad_low.t())])


def _updated(layers: Sequence[Affine], stack: Tensor) -> Iterator[tuple[Affine, Tensor]]:
    """Each layer that has an update, with its rows of a stack (R, ...)."""
    updated = [layer for layer in layers if layer.rank]
    return zip(updated, stack.split([layer.rank for layer in updated]), strict=True)


def _dropped(x: Tensor, layer: Affine) -> Tensor:
    return x if layer.keep is None else (x * layer.keep).mul_(layer.rescale)


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
