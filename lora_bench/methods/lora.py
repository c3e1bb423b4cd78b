"""LoRA on any of the encoder's linear layers (lora_bench/lora.py), the spec's freezing policy on the rest."""

from ..model.lora import inject_lora
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, SpecError
from . import Method


class Lora(Method):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
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
        except ValueError as error:  # a layer that this encoder does not have
            raise SpecError("method.layers", m.layers, str(error)) from None
        super().prepare(model, spec)


METHOD = Lora
