"""LoRA over a frozen base in 4-bit NF4 (QLoRA, Dettmers et al. 2023, arXiv 2305.14314)."""

from typing import Any

from bitsandbytes import matmul_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn
from transformers import RobertaModel

from .lora import LoraLinear

BLOCK = 64  # weights that share a scale


class LoraLinear4bit(LoraLinear):
    """A LoraLinear over a 4-bit weight, which stays 4-bit in the backward pass as well."""

    weight: Any  # Params4bit

    def base(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), without the update."""
        return matmul_4bit(x, self.weight.t(), bias=self.bias, quant_state=self.weight.quant_state)

    def merge(self) -> None:
        """Not possible.

        Raises:
            RuntimeError: always; a 4-bit weight is too coarse to hold an update.
        """
        raise RuntimeError(
            "a 4-bit weight cannot take the update: merge into the unquantized model instead"
        )


def quantize(encoder: RobertaModel) -> None:
    """Replace the weight of every linear layer with its 4-bit NF4 form, in place.

    A LoraLinear keeps its update and becomes a LoraLinear4bit.

    Raises:
        ValueError: the input width of a layer is not a multiple of 64.
    """
    for path, layer in list(encoder.encoder.named_modules()):
        if not isinstance(layer, nn.Linear):
            continue
        # On a CPU, bitsandbytes 0.50 silently unpacks rows of other lengths wrongly: a
        # random (32, 32) weight comes back with 37 % error, (32, 64) with the 9 % that NF4 costs.
        if layer.in_features % BLOCK:
            raise ValueError(f"{path} is {layer.in_features} wide; must be a multiple of {BLOCK}")
        weight: Any = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        weight = weight.to(layer.weight.device)  # quantizes
        if isinstance(layer, LoraLinear):
            layer.weight, layer.__class__ = weight, LoraLinear4bit
        else:
            quantized = Linear4bit(
                layer.in_features, layer.out_features, device="meta", quant_type="nf4"
            )
            quantized.weight, quantized.bias = weight, layer.bias
            encoder.encoder.set_submodule(path, quantized)
