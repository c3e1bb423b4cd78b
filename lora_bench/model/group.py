"""Models of several runs as one: what they share is computed in one pass."""

from collections.abc import Sequence

from torch import Tensor

from .forward import EncoderPass
from .packing import Batch
from .wrapper import LoraWrapperRoberta


class Group:
    """Models that were built on one encoder (see ``build``), called with a batch each.

    Frozen parameters are shared and their products computed once for all tokens. Updates, trained
    biases, LayerNorms, adapters, heads and dropout masks are each model's own.

    Args:
        models: models with the same task and encoder, in one precision.
    """

    def __init__(self, models: Sequence[LoraWrapperRoberta]):
        self.models = list(models)
        first = models[0].encode
        self._encode = EncoderPass(
            [m.encoder for m in models], first.project.dtype, checkpointing=first.checkpointing
        )

    def __call__(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The logits of each model, (B, outputs) or (T, outputs), for its batch."""
        if len(batches) == 1:  # with the model's own forward, which a method may have hooked
            return [self.models[0](batches[0])]
        hidden = self._encode(
            Batch.merge(batches),
            [model.stream for model in self.models],
            first_only=not self.models[0].per_token,
        )
        return [model.logits(own) for model, own in zip(self.models, hidden, strict=True)]
