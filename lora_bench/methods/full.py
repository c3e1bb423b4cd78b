"""Full fine-tuning: every parameter of encoder and head."""

from ..spec import Spec
from ..wrapper import LoraWrapperRoberta
from . import Method


class Full(Method):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        model.requires_grad_(True)


METHOD = Full
