"""AdaLoRA (Zhang et al. 2023, arXiv 2303.10512) by PEFT: ``P Lambda Q`` updates whose singular values are cut, step by step, to
a budget over all layers. PEFT's part is the layers and the allocation; here it meets our loop.

``method.args`` gives the schedule as shares of all steps (``tinit``, ``tfinal``), since a preset cannot know their number.
"""

from functools import partial

import torch
from torch import Tensor, nn

from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, SpecError
from .peft import ADAPTER, Peft


class AdaLora(Peft):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Raises: SpecError."""
        for name in ("tinit", "tfinal"):
            if not 0 <= spec.method.args[name] < 1:
                raise SpecError(
                    f"method.args.{name}",
                    spec.method.args[name],
                    "must be a share of all steps below 1",
                )
        self.shares = {name: spec.method.args[name] for name in ("tinit", "tfinal")}
        super().prepare(model, spec)

    def config_arguments(self, spec: Spec) -> dict:
        """PEFT asks for steps that are only known later: any valid ones until ``optimizer``."""
        return {**spec.method.args, "tinit": 0, "tfinal": 0, "total_step": 1}

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        config = self.tuner.peft_config[ADAPTER]
        config.total_step = self.steps
        config.tinit, config.tfinal = (
            round(self.steps * self.shares[name]) for name in ("tinit", "tfinal")
        )
        factors = [
            (name, p)
            for name, p in model.named_parameters()
            if "lora_A" in name or "lora_B" in name
        ]
        for name, factor in factors:
            weight = config.orth_reg_weight / len(factors)
            factor.register_hook(partial(_add_orthogonality, factor, "lora_B" in name, weight))
        return super().optimizer(model, spec)

    def after_step(self, model: LoraWrapperRoberta, step: int) -> None:
        self.tuner.update_and_allocate(step)


def _add_orthogonality(
    factor: nn.Parameter, transposed: bool, weight: float, gradient: Tensor
) -> Tensor:
    """Gradient of the loss with ``weight * ||F F^T - I||`` (Frobenius) in it, which is the paper's equation 4 as PEFT adds
    it: F is Q, or P transposed. A hook on the gradient leaves the loop without a loss term of one method."""
    f = factor.detach().T if transposed else factor.detach()  # (rank, D)
    gap = f @ f.T
    gap.diagonal().sub_(1.0)
    penalty = 2 * weight / gap.norm().clamp_min(1e-12) * (gap @ f)  # d||G|| = <G, dG> / ||G||
    return gradient + (penalty.T if transposed else penalty)


METHOD = AdaLora
