"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314): the frozen linear layers in 4-bit NF4 with double quantisation, our
LoraLinear on top. On a CPU too (bitsandbytes)."""

from torch import Tensor, nn

from ..model.lora import LoraLinear
from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, UserError
from . import require
from .lora import Lora

BLOCK = 64  # weights that share a scale


class LoraLinear4bit(LoraLinear):
    """A LoraLinear over a 4-bit weight, which stays 4-bit in the backward pass as well."""

    def base(self, x: Tensor) -> Tensor:
        from bitsandbytes import matmul_4bit

        return matmul_4bit(x, self.weight.t(), bias=self.bias, quant_state=self.weight.quant_state)

    def merge(self) -> None:
        raise RuntimeError(
            "a 4-bit weight cannot take the update: merge into the unquantised model instead"
        )


class QLora(Lora):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Raises: UserError: bitsandbytes is not installed, or the encoder's width does not suit it."""
        nn4 = require("bitsandbytes", "qlora", "method=qlora").nn
        super().prepare(model, spec)
        for path, layer in list(model.encoder.encoder.named_modules()):
            if isinstance(layer, nn.Linear):
                # On a CPU, bitsandbytes 0.50 unpacks rows of another length wrongly and says nothing: a random (32, 32)
                # weight comes back with 37 % error, (32, 64) with the 9 % that NF4 costs.
                if layer.in_features % BLOCK:
                    raise UserError(
                        f"method=qlora: {path} is {layer.in_features} wide; must be a multiple of {BLOCK}"
                    )
                weight = nn4.Params4bit(
                    layer.weight.data, requires_grad=False, quant_type="nf4"
                ).to(layer.weight.device)
                if isinstance(layer, LoraLinear):
                    layer.weight, layer.__class__ = (
                        weight,
                        LoraLinear4bit,
                    )  # the same layer but for its base
                else:
                    quantised = nn4.Linear4bit(
                        layer.in_features, layer.out_features, device="meta", quant_type="nf4"
                    )
                    quantised.weight, quantised.bias = weight, layer.bias
                    model.encoder.encoder.set_submodule(path, quantised)


METHOD = QLora
