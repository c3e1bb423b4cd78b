"""The end of both blocks of an encoder layer as one differentiable function.

Unlike plain autograd, it computes no gradient that is not needed, and it stores a dropout
mask as zeros and ones in the activations' dtype and applies its scale separately, without rounding
it. The functions for linear layers (:mod:`lora_bench.model.affine`) and attention
(:mod:`lora_bench.model.attention`) do so too.
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
