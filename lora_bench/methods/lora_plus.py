"""LoRA+ (Hayou et al. 2024, arXiv 2402.12354): one learning rate for A and everything else, a larger one for B."""

import math
from dataclasses import dataclass

import torch

from ..model.lora import lora_layers
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, SpecError
from . import arguments
from .lora import Lora


@dataclass
class Args:
    lr_ratio: float  # learning rate of B over that of A


class LoraPlus(Lora):
    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """Method's AdamW with the B matrices in a group of their own. Raises: SpecError."""
        ratio = arguments(spec, Args).lr_ratio
        if not (ratio > 0 and math.isfinite(ratio)):
            raise SpecError("method.args.lr_ratio", ratio, "must be a finite number above 0")
        optimizer = super().optimizer(model, spec)
        fast = [layer.lora_b for layer in lora_layers(model)]
        moved = {id(b) for b in fast}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in moved]
        decay = spec.train.weight_decay
        optimizer.add_param_group(
            {"params": fast, "lr": spec.train.lr * ratio, "weight_decay": decay}
        )
        return optimizer


METHOD = LoraPlus
