"""GaLore (Zhao et al. 2024, arXiv 2403.03507), with its authors' package ``galore-torch``.

Every weight is trained, but AdamW's moments for the linear layers are kept in a low-rank projection
of the gradient, which is recomputed every few steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..checks import check_count
from ..spec import Spec
from . import adapted_modules, arguments, require
from .full import Full

if TYPE_CHECKING:
    import torch

    from ..model.wrapper import LoraWrapperRoberta


@dataclass
class GaloreArgs:
    """Settings that only GaLore has."""

    update_gap: int  # optimizer steps between two projections (T in the paper)


class GaLore(Full):
    """Projects ``targets`` to ``rank``; ``alpha`` is the paper's scale factor."""

    reads = frozenset({"rank", "alpha", "targets", "layers"})
    needs = frozenset({"rank", "alpha", "targets"})
    ignores = frozenset({"train.optimizer"})  # the package's own AdamW
    packages: ClassVar[dict[str, str]] = {"galore_torch": "galore"}
    Args = GaloreArgs

    @classmethod
    def check(cls, spec: Spec) -> None:
        """See ``Method.check``."""
        super().check(spec)
        check_count("method.args.update_gap", arguments(spec, GaloreArgs).update_gap, 1)

    def optimizer(self, model: LoraWrapperRoberta, spec: Spec) -> torch.optim.Optimizer:
        """AdamW over a low-rank projection of the targets' gradients (paper, algorithm 2)."""
        package = require("galore_torch", "galore", "method=galore")
        m, decay = spec.method, spec.train.weight_decay
        paths = adapted_modules(model, spec)
        projected = [model.encoder.get_submodule(path).weight for path in paths]
        chosen = {id(p) for p in projected}
        rest = [p for p in model.parameters() if id(p) not in chosen]
        projection = {
            "rank": m.rank,
            "scale": m.alpha,
            "update_proj_gap": arguments(spec, GaloreArgs).update_gap,
            "proj_type": "std",
        }
        groups = [
            {"params": projected, "weight_decay": decay, **projection},
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return package.GaLoreAdamW(groups, lr=spec.train.lr, no_deprecation_warning=True)


METHOD = GaLore
