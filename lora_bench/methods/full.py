"""Full fine-tuning: trains every parameter of encoder and head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spec import Spec
from . import Method

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta


class Full(Method):
    """Trains everything, so no freezing policy applies."""

    reads = frozenset()
    stateless = True

    @classmethod
    def lowest_trained(cls, spec: Spec) -> int:
        """The embeddings are trained too."""
        return 0

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Train every parameter."""
        model.requires_grad_(True)


METHOD = Full
