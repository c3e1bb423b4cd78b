"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314): LoRA over a frozen base in 4-bit NF4.

Also runs on a CPU (bitsandbytes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from ..spec import Spec
from . import require
from .lora import Lora

if TYPE_CHECKING:
    from ..model.wrapper import LoraWrapperRoberta


class QLora(Lora):
    """LoRA with 4-bit weights in all linear layers of the encoder, adapted or not."""

    stateless = True
    packages: ClassVar[dict[str, str]] = {"bitsandbytes": "qlora"}

    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Inject LoRA, then quantize.

        Raises:
            UserError: the width of the encoder does not fit the 4-bit format.
        """
        require("bitsandbytes", "qlora", "method=qlora")
        from ..model.quantized import quantize

        super().prepare(model, spec)
        try:
            quantize(model.encoder)
        except ValueError as error:
            raise UserError(f"method=qlora: {error}") from None


METHOD = QLora
