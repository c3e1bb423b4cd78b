"""Gradient clipping and the check of the loss on a GPU, without waiting for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..model.tables import to_device

if TYPE_CHECKING:
    from .trainee import Trainee

EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


@dataclass(frozen=True)
class Guard:
    """What the fused AdamW does to its gradients on the GPU; both are scalars there.

    Attributes:
        divisor: divides the gradients, so that their norm is at most ``max_grad_norm``; at least 1.
        skip: 1 if the loss is not finite and the step is left out, else 0.
    """

    divisor: Tensor
    skip: Tensor


def can_guard(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer takes a guard: PyTorch's fused AdamW on a GPU, in fp32."""
    return type(optimizer) is torch.optim.AdamW and all(
        group["fused"] and first.device.type == "cuda" and first.dtype is torch.float32
        for group in optimizer.param_groups
        for first in group["params"][:1]
    )


@torch.no_grad()
def guards(trainees: Sequence["Trainee"], losses: Sequence[Tensor]) -> dict["Trainee", Guard]:
    """The guard of each trainee whose optimizer takes one.

    Args:
        trainees: trainees with their gradients.
        losses: loss of each, a scalar on the device.
    """
    pairs = [pair for pair in zip(trainees, losses, strict=True) if can_guard(pair[0].optimizer)]
    if not pairs:
        return {}
    guarded = [trainee for trainee, _ in pairs]
    grads = [[p.grad for p in t.trained if p.grad is not None] for t in guarded]
    norms = torch.stack(torch._foreach_norm([grad for own in grads for grad in own]))
    totals = [torch.linalg.vector_norm(own) for own in norms.split([len(own) for own in grads])]
    limits = np.array([t.spec.train.max_grad_norm for t in guarded], dtype=np.float32)
    (most,) = to_device([limits], norms.device)
    divisors = ((torch.stack(totals) + EPSILON) / most).clamp(min=1).unbind(0)
    skips = torch.stack([loss for _, loss in pairs]).isfinite().logical_not().float().unbind(0)
    return {t: Guard(*pair) for t, *pair in zip(guarded, divisors, skips, strict=True)}
