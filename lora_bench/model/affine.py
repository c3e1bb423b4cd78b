"""Linear layers of one input as one matrix product, with their low-rank updates.

It exists for what plain autograd does not do: the frozen weights of several layers are one matrix
in the precision of the products, in the order in which a CPU reads it; no gradient is computed that
nobody asked for; and low-rank updates and their gradients are added in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Affine:
    """One linear layer: ``x W^T + bias + scaling (c x * keep) A^T B^T``.

    Args:
        weight: (out, in).
        bias: (out,) or None.
        a: (rank, in) or None: no update.
        b: (out, rank) or None.
        scaling: of the update.
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


class Product:
    """The weights of linear layers of one input, stacked into one matrix product.

    A frozen bf16 weight is stored in the order in which the CPU's product reads it, once for each
    direction, which saves 5 to 10 % of the product.

    Args:
        layers: of which layer i has out_i outputs; N is their sum.
        dtype: of the product.
        frozen: whether the product will be used for more than one step.
    """

    @torch.no_grad()
    def __init__(self, layers: Sequence[Affine], dtype: torch.dtype, frozen: bool = False):
        self.widths = [len(layer.weight) for layer in layers]
        weight = _stacked([layer.weight for layer in layers]).to(dtype)  # (N, in)
        self.packed = frozen and _can_pack(weight)
        if self.packed:
            self._forward = _packed(weight)
            self._backward = _packed(weight.t().contiguous())
        else:
            self._forward = self._backward = weight

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (T, in), bias (N,) -> (T, N)."""
        if self.packed:
            return _packed_linear(x, self._forward, bias)
        return F.linear(x, self._forward, bias)

    def backward(self, grad: Tensor) -> Tensor:
        """(T, N) -> the gradient of x (T, in)."""
        if self.packed:
            return _packed_linear(grad, self._backward, None)
        return grad @ self._backward


@torch.no_grad()
def stacked_bias(layers: Sequence[Affine], dtype: torch.dtype) -> Tensor | None:
    """The biases of linear layers (N,), zeros where one has none; None: no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    filled = [
        layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        for layer in layers
    ]
    return _stacked(filled).to(dtype)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


PACKED_FOR = 512  # rows of the input for which the order is chosen; any number computes the same


def _can_pack(weight: Tensor) -> bool:
    on_cpu = weight.device.type == "cpu" and weight.dtype is torch.bfloat16
    available = on_cpu and torch.backends.mkldnn.is_available()
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)


def _packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def affine(x: Tensor, layers: Sequence[Affine], product: Product, bias: Tensor | None) -> Tensor:
    """Several linear layers of one input, side by side: x (T, in) -> (T, N).

    Args:
        x: in the precision of the products.
        layers: with their parameters as they are trained.
        product: of their weights.
        bias: (N,), their biases in the precision of ``x``; None: no layer has one.
    """
    parameters = [p for layer in layers for p in (layer.weight, layer.bias, layer.a, layer.b)]
    return _Affine.apply(x, layers, product, bias, *parameters)


class _Affine(torch.autograd.Function):
    """The updates of all layers are one: R is the sum of their ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layers: Sequence[Affine],
        product: Product,
        bias: Tensor | None,
        *parameters: Tensor | None,
    ) -> Tensor:
        """Each layer has four parameters: weight, bias, a, b."""
        out = product.forward(x, bias)  # (T, N)
        updated = [layer for layer in layers if layer.a is not None]
        ctx.layers, ctx.updated, ctx.product = layers, updated, product
        low = a = b = None
        if updated:
            a, b = _stacked_updates(layers, product.widths, x)  # (R, in), (R, N)
            low = _reduced(x, updated, a)  # (T, R)
            out.addmm_(low, b)
        needs = ctx.needs_input_grad[4:]
        needs_x = any(needs[0::4]) or any(needs[2::4])
        ctx.save_for_backward(x if needs_x else None, low, a, b)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients of x and of the parameters."""
        x, low, a, b = ctx.saved_tensors
        layers, updated, product = ctx.layers, ctx.updated, ctx.product
        needs = ctx.needs_input_grad
        grad_x = product.backward(grad) if needs[0] else None
        grad_a: Any = None
        grad_b: Any = None
        if low is not None:
            grad_low = grad @ b.t()  # (T, R)
            if grad_x is not None:
                _add_reduced_gradient(grad_x, grad_low, updated, a)
            if any(needs[6::4]):
                grad_a = _grad_of_a(x, grad_low, updated)  # (R, in)
            if any(needs[7::4]):
                grad_b = low.t() @ grad  # (R, N); of low rank first, its product is the faster one
        grads: list[Tensor | None] = []
        rank = column = 0
        for i, (layer, width) in enumerate(zip(layers, product.widths, strict=True)):
            needs_weight, needs_bias, needs_a, needs_b = needs[4 + 4 * i : 8 + 4 * i]
            rows, columns = slice(rank, rank + _rank(layer)), slice(column, column + width)
            g = grad[:, columns]
            grads += [
                g.t() @ x if needs_weight else None,
                g.sum(0, dtype=_sum_type(g)) if needs_bias else None,
                grad_a[rows] if needs_a else None,
                (grad_b[rows, columns] * layer.scaling).t() if needs_b else None,
            ]
            rank, column = rows.stop, columns.stop
        return grad_x, None, None, None, *grads


def _rank(layer: Affine) -> int:
    return 0 if layer.a is None else len(layer.a)


def _stacked_updates(
    layers: Sequence[Affine], widths: Sequence[int], x: Tensor
) -> tuple[Tensor, Tensor]:
    """All A (R, in), and all B, scaled and transposed, as one block-diagonal matrix (R, N).

    Both are in the precision of x.
    """
    total = sum(map(_rank, layers))
    b = x.new_zeros(total, sum(widths))
    rank = column = 0
    for layer, width in zip(layers, widths, strict=True):
        if layer.b is not None:
            block = b[rank : rank + _rank(layer), column : column + width]
            torch.mul(layer.b.t(), layer.scaling, out=block)
        rank, column = rank + _rank(layer), column + width
    rows = [layer.a.to(x.dtype) for layer in layers if layer.a is not None]
    return _stacked(rows), b


def _reduced(x: Tensor, updated: Sequence[Affine], a: Tensor) -> Tensor:
    """x (T, in) -> (T, R): the inner activations of all updates."""
    if all(layer.keep is None for layer in updated):
        return x @ a.t()
    parts = a.split([_rank(layer) for layer in updated])
    pairs = zip(updated, parts, strict=True)
    return torch.cat([_dropped(x, layer) @ part.t() for layer, part in pairs], 1)


def _add_reduced_gradient(
    grad_x: Tensor, grad_low: Tensor, updated: Sequence[Affine], a: Tensor
) -> None:
    """Add what the gradients of the inner activations (T, R) are for x (T, in)."""
    if all(layer.keep is None for layer in updated):
        grad_x.addmm_(grad_low, a)
        return
    ranks = [_rank(layer) for layer in updated]
    for layer, g, part in zip(updated, grad_low.split(ranks, 1), a.split(ranks), strict=True):
        if layer.keep is None:
            grad_x.addmm_(g, part)
        else:
            grad_x.addcmul_(g @ part, layer.keep, value=layer.rescale)


def _grad_of_a(x: Tensor, grad_low: Tensor, updated: Sequence[Affine]) -> Tensor:
    """(R, in)."""
    if all(layer.keep is None for layer in updated):
        return grad_low.t() @ x
    parts = grad_low.split([_rank(layer) for layer in updated], 1)
    pairs = zip(updated, parts, strict=True)
    return torch.cat([part.t() @ _dropped(x, layer) for layer, part in pairs])


def _dropped(x: Tensor, layer: Affine) -> Tensor:
    return x if layer.keep is None else (x * layer.keep).mul_(layer.rescale)


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
