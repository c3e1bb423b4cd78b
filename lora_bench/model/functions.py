"""The differentiable functions of the encoder pass, each with a backward pass of its own.

They exist for what plain autograd does not do: they take the frozen weights as copies in the
precision of the products, compute no gradient that nobody asked for, add low-rank updates and
their gradients in place, and keep a dropout mask as 0 and 1 in the activations' precision while
its scale is applied exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
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


def affine(x: Tensor, layers: Sequence[Affine], cast: Callable[[Tensor], Tensor]) -> Tensor:
    """Several linear layers of one input, side by side: x (T, in) -> (T, sum of their outs).

    Args:
        x: in the precision of the products.
        layers: with their parameters as they are trained.
        cast: gives a parameter in the precision of ``x``.
    """
    parameters = [p for layer in layers for p in (layer.weight, layer.bias, layer.a, layer.b)]
    return _Affine.apply(x, layers, cast, *parameters)


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layers: Sequence[Affine],
        cast: Callable[[Tensor], Tensor],
        *parameters: Tensor | None,
    ) -> Tensor:
        """Each layer has four parameters: weight, bias, a, b."""
        values: list[Any] = [None if p is None else cast(p) for p in parameters]
        widths = [len(weight) for weight in values[::4]]
        out = x.new_empty(len(x), sum(widths))
        lows = []
        for i, (layer, y) in enumerate(zip(layers, out.split(widths, 1), strict=True)):
            weight, bias, a, b = values[4 * i : 4 * i + 4]
            if bias is None:
                torch.mm(x, weight.t(), out=y)
            else:
                torch.addmm(bias, x, weight.t(), out=y)
            low = None
            if a is not None:
                low = _dropped(x, layer) @ a.t()  # (T, rank)
                y.addmm_(low, b.t(), alpha=layer.scaling)
            lows.append(low)
        needs_x = any(ctx.needs_input_grad[3 + i] for i in range(len(values)) if i % 4 in (0, 2))
        ctx.save_for_backward(x if needs_x else None, *lows, *values)
        ctx.layers, ctx.widths = layers, widths
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        count = len(ctx.layers)
        x, *saved = ctx.saved_tensors
        lows, values = saved[:count], saved[count:]
        needs = ctx.needs_input_grad
        grad_x: Any = None
        grads: list[Tensor | None] = []
        for i, (layer, g) in enumerate(zip(ctx.layers, grad.split(ctx.widths, 1), strict=True)):
            weight, _, a, b = values[4 * i : 4 * i + 4]
            needs_weight, needs_bias, needs_a, needs_b = needs[3 + 4 * i : 7 + 4 * i]
            grad_a = grad_b = None
            if needs[0]:
                grad_x = g @ weight if grad_x is None else grad_x.addmm_(g, weight)
            if a is not None:
                grad_low = (g @ b).mul_(layer.scaling)  # (T, rank)
                if needs[0] and layer.keep is None:
                    grad_x.addmm_(grad_low, a)
                elif needs[0]:
                    grad_x.addcmul_(grad_low @ a, layer.keep, value=layer.rescale)
                grad_a = grad_low.t() @ _dropped(x, layer) if needs_a else None
                grad_b = (g.t() @ lows[i]).mul_(layer.scaling) if needs_b else None
            grads += [
                g.t() @ x if needs_weight else None,
                g.sum(0, dtype=_sum_type(g)) if needs_bias else None,
                grad_a,
                grad_b,
            ]
        return grad_x, None, None, *grads


def _dropped(x: Tensor, layer: Affine) -> Tensor:
    return x if layer.keep is None else (x * layer.keep).mul_(layer.rescale)


def _sum_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class ResidualNorm(torch.autograd.Function):
    """``LayerNorm(residual + c h * keep)``, the end of both blocks of an encoder layer."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        residual: Tensor,
        keep: Tensor | None,
        rescale: float,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        """h, residual, keep (T, D); weight, bias (D,) -> (T, D); statistics are in fp32."""
        total = residual + h if keep is None else torch.addcmul(residual, h, keep, value=rescale)
        out, mean, rstd = torch.native_layer_norm(total, weight.shape, weight, bias, eps)
        ctx.save_for_backward(total, keep, mean, rstd, weight, bias)
        ctx.rescale = rescale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients of the tensors among the inputs."""
        total, keep, mean, rstd, weight, bias = ctx.saved_tensors
        needs_h, needs_residual, *_, needs_weight, needs_bias, _ = ctx.needs_input_grad
        wanted = [needs_h or needs_residual, needs_weight, needs_bias]
        grad_total, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
            grad, total, weight.shape, mean, rstd, weight, bias, wanted
        )
        grad_h = grad_total
        if keep is not None and needs_h:
            grad_h = (grad_total * keep).mul_(ctx.rescale)
        return grad_h, grad_total, None, None, grad_weight, grad_bias, None


class DropoutAttention(torch.autograd.Function):
    """``(c softmax(scaling q k^T + bias) * keep) v``, over n = examples times heads.

    SDPA's fused CPU kernel has no dropout; its fallback draws torch's slow random numbers.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        keep: Tensor,
        scaling: float,
        rescale: float,
    ) -> Tensor:
        """q (b, h, M, d); k, v (b, h, L, d); bias (b, 1, 1, L); keep (b, h, M, L) -> as q."""
        q3, k3, v3 = (x.flatten(0, 1) for x in (q, k, v))  # (n, M or L, d)
        scores = _bmm(q3, k3.transpose(1, 2), scaling)  # (n, M, L)
        if bias is not None:
            scores.view(keep.shape).add_(bias)
        weights = scores.softmax(-1)
        out = _bmm(weights * keep.flatten(0, 1), v3, rescale)
        ctx.save_for_backward(q3, k3, v3, weights, keep)
        ctx.scaling, ctx.rescale = scaling, rescale
        return out.view(q.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """The gradients of the tensors among the inputs."""
        q, k, v, weights, keep = ctx.saved_tensors
        keep = keep.flatten(0, 1)
        grad3 = grad.flatten(0, 1) * ctx.rescale  # (n, M, d)
        grad_v = torch.bmm((weights * keep).transpose(1, 2), grad3)
        grad_weights = torch.bmm(grad3, v.transpose(1, 2)).mul_(keep)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_q = _bmm(grad_scores, k, ctx.scaling)
        grad_k = _bmm(grad_scores.transpose(1, 2), q, ctx.scaling)
        b, h = grad.shape[:2]
        grads = [g.unflatten(0, (b, h)) for g in (grad_q, grad_k, grad_v)]
        return *grads, None, None, None, None


def _bmm(x: Tensor, y: Tensor, scale: float) -> Tensor:
    """``scale x y`` of batches, the scale applied before rounding."""
    out = x.new_empty(x.shape[0], x.shape[1], y.shape[2])
    return torch.baddbmm(out, x, y, beta=0, alpha=scale, out=out)
