"""The differentiable functions of the encoder pass, each with its own backward pass.

They exist for what plain autograd does not do: they do not compute unneeded gradients, and keep a
dropout mask as 0 and 1 in the activations' precision while its scale is applied exactly. The
functions for linear layers are in :mod:`lora_bench.model.affine`.
"""

from typing import Any

import torch
from torch import Tensor


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
        """The gradients of the tensor inputs."""
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
        """The gradients of the tensor inputs."""
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
    """Batched ``scale x y``, with the scale applied before rounding."""
    out = x.new_empty(x.shape[0], x.shape[1], y.shape[2])
    return torch.baddbmm(out, x, y, beta=0, alpha=scale, out=out)
