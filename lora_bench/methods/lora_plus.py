"""LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B has a larger learning rate than the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..checks import check_positive
from ..spec import Spec
from . import arguments
from .lora import Lora

if TYPE_CHECKING:
    import torch

    from ..model.wrapper import LoraWrapperRoberta


@dataclass
class LoraPlusArgs:
    """Settings that only LoRA+ has."""

    lr_ratio: float  # learning rate of B over that of A


class LoraPlus(Lora):
    """LoRA with the B matrices in an optimizer group of their own."""

    Args = LoraPlusArgs
    grouped = stateless = True

    @classmethod
    def check(cls, spec: Spec) -> None:
        """See ``Method.check``."""
        super().check(spec)
        check_positive("method.args.lr_ratio", arguments(spec, LoraPlusArgs).lr_ratio)

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """AdamW with the B matrices in a group of their own."""
        from ..model.inject import lora_layers

        optimizer = super().optimizer(model, spec)
        fast = [layer.lora_b for layer in lora_layers(model)]
        moved = {id(b) for b in fast}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in moved]
        rate = spec.train.lr * arguments(spec, LoraPlusArgs).lr_ratio
        decay = spec.train.weight_decay
        optimizer.add_param_group({"params": fast, "lr": rate, "weight_decay": decay})
        return optimizer


METHOD = LoraPlus
