"""GaLore (Zhao et al. 2024, arXiv 2403.03507) by its authors' ``galore-torch``: every weight is trained, but AdamW's moments
of the linear layers live in a low-rank projection of the gradient that is found anew every few steps."""

from dataclasses import dataclass

import torch

from ..model.lora import target_modules
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, SpecError
from . import arguments, require
from .full import Full


@dataclass
class Args:
    update_gap: int  # optimizer steps between two projections (T of the paper)


class GaLore(Full):
    """``method.rank`` is the projection's, ``method.alpha`` the paper's scale factor alpha, ``method.targets`` what is
    projected."""

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """Raises: SpecError; UserError: galore-torch is not installed."""
        package, m, gap = (
            require("galore_torch", "galore", "method=galore"),
            spec.method,
            arguments(spec, Args).update_gap,
        )
        if gap < 1:
            raise SpecError("method.args.update_gap", gap, "must be 1 or more")
        paths = target_modules(model.encoder, m.targets, m.layers)
        projected = [model.encoder.get_submodule(path).weight for path in paths]
        chosen = {id(p) for p in projected}
        rest = [p for p in model.parameters() if id(p) not in chosen]
        low_rank = {"rank": m.rank, "scale": m.alpha, "update_proj_gap": gap, "proj_type": "std"}
        groups = [
            {"params": projected, "weight_decay": spec.train.weight_decay, **low_rank},
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": spec.train.weight_decay},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return package.GaLoreAdamW(groups, lr=spec.train.lr, no_deprecation_warning=True)


METHOD = GaLore
