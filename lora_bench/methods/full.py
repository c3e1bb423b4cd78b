"""Full fine-tuning: every parameter of encoder and head."""

from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec
from . import Method


class Full(Method):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        model.requires_grad_(True)


METHOD = Full
