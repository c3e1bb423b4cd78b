"""Bottleneck adapters: two small linear layers with a non-linearity between them."""

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import RobertaModel
from transformers.models.roberta.modeling_roberta import RobertaOutput


class Bottleneck(nn.Module):
    """``x + up(gelu(down(x)))``, close to the identity at the start.

    Weights are drawn from a normal distribution with standard deviation 1e-3 and biases are zero,
    as in google-research/adapter-bert. The reference truncates at two standard deviations, and this
    class does not.

    Args:
        hidden_size: D, width of input and output.
        width: width between the two layers.
    """

    adapter_names = ("down.weight", "down.bias", "up.weight", "up.bias")

    def __init__(self, hidden_size: int, width: int):
        super().__init__()
        self.down = nn.Linear(hidden_size, width)
        self.up = nn.Linear(width, hidden_size)
        for layer in (self.down, self.up):
            # cuts at 2, 2,000 standard deviations, so nothing; another function draws other numbers
            nn.init.trunc_normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        return x + self.update(x)

    def update(self, x: Tensor) -> Tensor:
        """What is added to the input: x (..., D) -> (..., D)."""
        return self.up(F.gelu(self.down(x)))


class PfeifferOutput(RobertaOutput):
    """The output of the feed-forward block with a bottleneck between two uses of its LayerNorm.

    Pfeiffer et al. 2021, arXiv 2005.00247, figure 5. Shares all modules of ``base``.

    Args:
        base: the layer's output block.
        width: width of the bottleneck.
    """

    def __init__(self, base: RobertaOutput, width: int):
        nn.Module.__init__(self)
        self.dense, self.dropout, self.LayerNorm = base.dense, base.dropout, base.LayerNorm
        self.bottleneck = Bottleneck(base.dense.out_features, width)

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        """(..., intermediate), (..., D) -> (..., D)."""
        total = self.dropout(self.dense(hidden_states)) + input_tensor
        return self.LayerNorm(total + self.bottleneck.update(self.LayerNorm(total)))


def add_houlsby(encoder: RobertaModel, width: int) -> None:
    """Add bottlenecks before the residual sums of the attention and the feed-forward block.

    Houlsby et al. 2019, arXiv 1902.00751, figure 2.
    """
    for layer in encoder.encoder.layer:
        for output in (layer.attention.output, layer.output):
            bottleneck = Bottleneck(output.dense.out_features, width)
            output.dropout = nn.Sequential(output.dropout, bottleneck)


def add_pfeiffer(encoder: RobertaModel, width: int) -> None:
    """Add a bottleneck after the feed-forward block of each layer (see ``PfeifferOutput``)."""
    for layer in encoder.encoder.layer:
        layer.output = PfeifferOutput(layer.output, width)
