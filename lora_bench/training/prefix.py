"""The frozen prefix: the layers below the lowest trained one, computed once for all epochs."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..model.wrapper import LoraWrapperRoberta


@dataclass(frozen=True)
class FrozenPrefix:
    """Outputs of the lowest layers for every token of a dataset, without dropout.

    Attributes:
        depth: number of layers, not counting the embeddings.
        hidden: (sum of lengths, D), flat like the arrays of ``Encoded``.
        starts: (n + 1,), ``starts`` of the dataset.
    """

    depth: int
    hidden: Tensor
    starts: np.ndarray

    def of(self, examples: np.ndarray) -> Tensor:
        """The rows for the examples' tokens, one example after the other: (T, D)."""
        return torch.cat([self.hidden[self.starts[i] : self.starts[i + 1]] for i in examples])


def check_frozen(model: LoraWrapperRoberta, depth: int) -> None:
    """Make sure that the prefix is frozen.

    Args:
        model: a model that its method has prepared.
        depth: number of layers of the prefix.

    Raises:
        RuntimeError: a parameter of the prefix is trained, so its output would change.
    """
    encoder = model.encoder
    for part in (encoder.embeddings, *encoder.encoder.layer[:depth]):
        if any(parameter.requires_grad for parameter in part.parameters()):
            raise RuntimeError(
                f"train.frozen_prefix=cache: the method trains below layer {depth}, which "
                "Method.lowest_trained does not say"
            )
