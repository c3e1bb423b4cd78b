"""LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): A is frozen as drawn, B is trained."""

from ..model.lora import lora_layers
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec
from .lora import Lora


class LoraFA(Lora):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        super().prepare(model, spec)
        for layer in lora_layers(model):
            layer.lora_a.requires_grad_(False)


METHOD = LoraFA
