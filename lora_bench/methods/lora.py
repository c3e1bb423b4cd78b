"""LoRA (model/lora.py) on any of the encoder's linear layers, the freezing policy on the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..errors import SpecError
from ..spec import MethodSpec, Spec
from . import POLICY, Method

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta


class Lora(Method):
    """LoRA (Hu et al. 2021, arXiv 2106.09685)."""

    grouped = stateless = True
    needs = frozenset({"rank", "alpha", "targets"})
    reads = POLICY | needs | {"rank_stabilized", "dropout", "init", "layers"}
    redraws: ClassVar[bool] = False  # whether A is initialized again during training

    @classmethod
    def check(cls, spec: Spec) -> None:
        """See ``Method.check``."""
        super().check(spec)
        if spec.init_from is not None and not cls.redraws and spec.method.init != MethodSpec().init:
            reason = "has no effect with init_from, whose adapter replaces the initial values"
            raise SpecError("method.init", spec.method.init, reason)

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Give the chosen linear layers a low-rank update and freeze the rest.

        Raises:
            SpecError: this encoder does not have a layer.
        """
        from ..model.inject import inject_lora

        m = spec.method
        try:
            inject_lora(
                model.encoder,
                targets=m.targets,
                layers=m.layers,
                rank=m.rank,
                alpha=m.alpha,
                dropout=m.dropout,
                init=m.init,
                rank_stabilized=m.rank_stabilized,
            )
        except ValueError as error:
            raise SpecError("method.layers", m.layers, str(error)) from None
        super().prepare(model, spec)


METHOD = Lora
