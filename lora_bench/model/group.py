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
        models: models with the same task and encoder, in one precision. The modules of several
            models, and which parameters are trained, must not change as long as the group is used.
        fixed: whether that also holds for a single model, which then need not be looked at in
            each call. If not, its own forward is called, which a method may have hooked.
    """

    def __init__(self, models: Sequence[LoraWrapperRoberta], *, fixed: bool = False):
        self.models = list(models)
        self._together = fixed or len(self.models) > 1
        first = models[0].encode
        self._encode = EncoderPass(
            [m.encoder for m in models],
            first.project.dtype,
            checkpointing=first.checkpointing,
            fixed=True,
        )

    def __call__(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The logits of each model, (B, outputs) or (T, outputs), for its batch."""
        if not self._together:
            return [self.models[0](batches[0])]
        hidden = self._encode(
            Batch.merge(batches),
            [model.stream for model in self.models],
            first_only=not self.models[0].per_token,
        )
        return [model.logits(own) for model, own in zip(self.models, hidden, strict=True)]
