"""Bottleneck adapters: two small linear layers with a non-linearity inside each encoder layer, at two placements."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.roberta.modeling_roberta import RobertaOutput

from ..model.wrapper import LoraWrapperRoberta
from ..spec import Spec, SpecError
from . import Method, arguments


@dataclass
class Args:
    bottleneck: int  # width between the two layers
    placement: str  # houlsby | pfeiffer


class Bottleneck(nn.Module):
    """``x + up(gelu(down(x)))``, x (..., D). Starts near the identity, as google-research/adapter-bert does."""

    adapter_names = ("down.weight", "down.bias", "up.weight", "up.bias")

    def __init__(self, hidden_size: int, width: int):
        super().__init__()
        self.down = nn.Linear(hidden_size, width)
        self.up = nn.Linear(width, hidden_size)
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.update(x)

    def update(self, x: Tensor) -> Tensor:
        return self.up(F.gelu(self.down(x)))


class PfeifferOutput(RobertaOutput):
    """The feed-forward block's output with one bottleneck between two uses of its LayerNorm (Pfeiffer et al. 2021,
    arXiv 2005.00247, figure 5). Shares all modules of ``base``."""

    def __init__(self, base: RobertaOutput, width: int):
        nn.Module.__init__(self)
        self.dense, self.dropout, self.LayerNorm = base.dense, base.dropout, base.LayerNorm
        self.bottleneck = Bottleneck(base.dense.out_features, width)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """(..., intermediate), (..., D) -> (..., D)."""
        total = self.dropout(self.dense(hidden_states)) + input_tensor
        return self.LayerNorm(total + self.bottleneck.update(self.LayerNorm(total)))


class Adapter(Method):
    def prepare(self, model: LoraWrapperRoberta, spec: Spec) -> None:
        """Raises: SpecError."""
        args = arguments(spec, Args)
        if args.bottleneck < 1:
            raise SpecError("method.args.bottleneck", args.bottleneck, "must be 1 or more")
        if args.placement not in ("houlsby", "pfeiffer"):
            raise SpecError(
                "method.args.placement", args.placement, "must be one of houlsby, pfeiffer"
            )
        for layer in model.encoder.encoder.layer:
            if args.placement == "pfeiffer":
                layer.output = PfeifferOutput(layer.output, args.bottleneck)
                continue
            for output in (
                layer.attention.output,
                layer.output,
            ):  # before the residual sum of both blocks
                output.dropout = nn.Sequential(
                    output.dropout, Bottleneck(output.dense.out_features, args.bottleneck)
                )
        super().prepare(model, spec)


METHOD = Adapter
