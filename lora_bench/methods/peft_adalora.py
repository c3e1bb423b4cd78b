"""AdaLoRA (Zhang et al. 2023, arXiv 2303.10512) by PEFT.

Updates ``P Lambda Q``, whose singular values are pruned step by step to a budget over all layers.
PEFT implements the layers and the allocation; this file connects them to our loop.
``method.args`` gives the schedule as shares of all steps (``tinit``, ``tfinal``), since a preset
cannot know their number.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ..checks import check_count
from ..errors import SpecError
from ..spec import Spec
from .peft import ADAPTER, Peft

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..model.wrapper import LoraWrapperRoberta

NEEDED = ("tinit", "tfinal", "init_r", "target_r", "deltaT", "orth_reg_weight")
# Fields of PEFT's LoraConfig without effect here: the ranks are init_r and target_r.
UNREAD = ("r", "use_rslora", "total_step", "rank_pattern")


class AdaLora(Peft):
    """AdaLoRA with its orthogonality penalty and rank allocation."""

    types = ("ADALORA",)
    own = ("tinit", "tfinal")

    @classmethod
    def check_args(cls, spec: Spec) -> None:
        """See ``Method.check_args``."""
        args = spec.method.args
        if missing := [name for name in NEEDED if name not in args]:
            reason = f"method={spec.method.name} needs {', '.join(missing)} too"
            raise SpecError("method.args", args, reason)
        for name in UNREAD:
            if name in args:
                reason = f"method={spec.method.name} does not read it"
                raise SpecError(f"method.args.{name}", args[name], reason)
        super().check_args(spec)
        for name in cls.own:
            share = args[name]
            if not (isinstance(share, int | float) and 0 <= share < 1):
                raise SpecError(
                    f"method.args.{name}", share, "must be a share of all steps below 1"
                )
        if args["tinit"] + args["tfinal"] >= 1:
            reason = f"must be below 1 together with method.args.tinit={args['tinit']}"
            raise SpecError("method.args.tfinal", args["tfinal"], reason)
        for name, low in (("target_r", 1), ("init_r", args["target_r"] + 1), ("deltaT", 1)):
            check_count(f"method.args.{name}", args[name], low)

    def config_arguments(self, spec: Spec) -> dict[str, Any]:
        """PEFT needs step counts, which are known later: placeholders until ``optimizer``."""
        return {**spec.method.args, "tinit": 0, "tfinal": 0, "total_step": 1}

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """AdamW; also sets the steps of the allocation and the factors of the penalty."""
        config: Any = self.tuner.peft_config[ADAPTER]
        config.total_step = self.steps
        config.tinit, config.tfinal = (
            round(self.steps * spec.method.args[name]) for name in self.own
        )
        factors = [
            (name, p)
            for name, p in model.named_parameters()
            if "lora_A" in name or "lora_B" in name
        ]
        weight = config.orth_reg_weight / len(factors)
        for name, factor in factors:
            factor.register_hook(partial(_add_orthogonality, factor, "lora_B" in name, weight))
        return super().optimizer(model, spec)

    def state(self) -> None:
        """PEFT's allocation of ranks cannot be saved: a stopped run starts over."""

    def after_step(self, model: LoraWrapperRoberta, step: int) -> None:
        """Prune singular values to the budget of this step (PEFT's part)."""
        self.tuner.update_and_allocate(step)


def _add_orthogonality(
    factor: nn.Parameter, transposed: bool, weight: float, gradient: Tensor
) -> Tensor:
    """Add the gradient of ``weight * ||F F^T - I||`` (Frobenius norm) to a factor's gradient.

    The penalty is equation 4 of the paper as PEFT adds it. A hook on the gradient keeps a loss term
    of one method out of the training loop.

    Args:
        factor: Q (rank, in), or P (out, rank).
        transposed: whether F is the factor's transpose, as for P.
        weight: weight of the penalty.
        gradient: gradient of the loss, or of its part (``train.accumulate``), with the shape of
            ``factor``.

    Returns:
        The sum of both gradients; in later parts of a step only that of the loss.
    """
    if factor.grad is not None:
        return gradient
    f = factor.detach().T if transposed else factor.detach()  # (rank, D)
    gap = f @ f.T
    gap.diagonal().sub_(1.0)
    penalty = 2 * weight / gap.norm().clamp_min(1e-12) * (gap @ f)  # d||G|| = <G, dG> / ||G||
    return gradient + (penalty.T if transposed else penalty)


METHOD = AdaLora
