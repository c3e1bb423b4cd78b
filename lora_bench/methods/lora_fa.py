"""LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): A stays as it was initialized, B is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spec import Spec
from .lora import Lora

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta


class LoraFA(Lora):
    """LoRA with a frozen A."""

    grouped = stateless = True

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Inject LoRA and freeze A."""
        from ..model.inject import lora_layers

        super().prepare(model, spec)
        for layer in lora_layers(model):
            layer.lora_a.requires_grad_(False)


METHOD = LoraFA
