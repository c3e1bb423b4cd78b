r"""The layers that the study compares, and the classifier that is built from them.

A hidden layer maps x (N, in) to (N, out) before its ReLU. W (out, in) stands for its matrix, A
(out, r) for the outer and B (r, in) for the inner factor.

**Why the initialization depends on the rank.** ``nn.Linear`` draws W from U(-1/sqrt(in),
1/sqrt(in)). A uniform number on (-c, c) has variance c^2 / 3, so an entry of W has the variance
1 / (3 in). Entries of the product of two independent factors with mean 0 are sums of r products:

    (A B)_ij = sum over k of A_ik B_kj          Var (A B)_ij = r Var(A) Var(B)

Two ``nn.Linear`` in a row draw A with the variance 1 / (3 r), since r is the width of its input,
and B with 1 / (3 in). Their product has r / (3 r) / (3 in) = 1 / (9 in): the rank cancels, and
every layer leaves only a third of the variance. (The biases make a second difference: the outer one
has the variance 1 / (3 r), which exceeds the signal if r is small.)

For the product to have the variance 1 / (3 in), r Var(A) Var(B) = 1 / (3 in) must hold. We give
both factors the same variance v, so that neither starts with the larger gradients:

    r v^2 = 1 / (3 in)      v = 1 / sqrt(3 in r)      bound of the uniform draw: sqrt(3 v)

The effect: let x have mean square m. The entries of y = A B x + b are uncorrelated, have mean 0, a
distribution symmetric about 0, and mean square in r v^2 m + Var(b) = m / 3 + Var(b) for every rank,
as for W. A ReLU halves the mean square of a symmetric variable. By induction, the activations of a
deep stack have, at every depth, the same mean square as those of full-rank layers. This holds on
average over draws: at rank 1, a single draw varies much more than W does.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .settings import CLASSES, Settings


class FullRank(nn.Module):
    """``W x + b``, initialized as ``nn.Linear``.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        generator: draws the weights.
    """

    def __init__(self, in_features: int, out_features: int, generator: torch.Generator):
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = _uniform((out_features, in_features), bound, generator)
        self.bias = _uniform((out_features,), bound, generator)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in) -> (N, out)."""
        return F.linear(x, self.weight, self.bias)


class LowRank(nn.Module):
    """``A B x + b``: a matrix of rank at most r, and the bias of a full-rank layer.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        rank: r, number of columns of A and of rows of B.
        init: how A and B are initialized. ``rank_aware``: the product has the variance of a
            full-rank layer (see the module). ``default``: what ``nn.Linear`` would draw for each
            factor. ``spectral``: the best rank-r approximation of a full-rank draw (truncated SVD,
            Eckart and Young 1936), its singular values shared equally.
        generator: draws the weights.

    Raises:
        ValueError: ``spectral`` with a rank that is too high for the matrix.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        init: str,
        generator: torch.Generator,
    ):
        super().__init__()
        outer, inner = (out_features, rank), (rank, in_features)
        bound = 1 / math.sqrt(in_features)
        if init == "spectral":
            if rank > min(in_features, out_features):
                raise ValueError(
                    f"rank={rank}: a layer from {in_features} to {out_features} has rank "
                    f"{min(in_features, out_features)} at most, and init=spectral no more"
                )
            drawn = _uniform((out_features, in_features), bound, generator).detach()
            u, s, vt = torch.linalg.svd(drawn, full_matrices=False)  # (out, k), (k,), (k, in)
            root = s[:rank].sqrt()
            self.a = nn.Parameter(u[:, :rank] * root)  # (out, r)
            self.b = nn.Parameter(root[:, None] * vt[:rank])  # (r, in)
        else:
            variance = 1 / math.sqrt(3 * in_features * rank)
            same = math.sqrt(3 * variance)
            bounds = (same, same) if init == "rank_aware" else (1 / math.sqrt(rank), bound)
            self.a = _uniform(outer, bounds[0], generator)
            self.b = _uniform(inner, bounds[1], generator)
        self.bias = _uniform((out_features,), bound, generator)

    @property
    def outer(self) -> nn.Parameter:
        """A (out, r)."""
        return self.a

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in) -> (N, out)."""
        low = F.linear(x, self.b)  # (N, r); forming A B first would cost an (out, in) product
        return F.linear(low, self.a, self.bias)


class Autoencoder(nn.Module):
    """``Layer2(Layer1(x))``: two full-rank layers with a bottleneck between them.

    Both have a bias and PyTorch's default initialization.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        rank: r, the width of the bottleneck.
        generator: draws the weights.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, generator: torch.Generator):
        super().__init__()
        self.layer1 = FullRank(in_features, rank, generator)
        self.layer2 = FullRank(rank, out_features, generator)

    @property
    def outer(self) -> nn.Parameter:
        """A (out, r)."""
        return self.layer2.weight

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in) -> (N, out)."""
        return self.layer2(self.layer1(x))


def make_layer(
    settings: Settings, in_features: int, out_features: int, generator: torch.Generator
) -> nn.Module:
    """A hidden layer of the kind given in the settings."""
    if settings.kind == "full":
        return FullRank(in_features, out_features, generator)
    assert settings.rank is not None
    if settings.kind == "autoencoder":
        return Autoencoder(in_features, out_features, settings.rank, generator)
    assert settings.init is not None
    return LowRank(in_features, out_features, settings.rank, settings.init, generator)


def make_classifier(settings: Settings, pixels: int, generator: torch.Generator) -> nn.Sequential:
    """The fully connected classifier of PyTorch's quickstart: pixels -> width -> width -> classes.

    The two hidden layers are of the kind under study. The output layer is full-rank in all runs:
    its matrix has as many rows as there are classes, so its rank is small anyway.

    Source: pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html

    Args:
        settings: settings of the run.
        pixels: pixels of an image.
        generator: draws the weights, layer by layer.
    """
    return nn.Sequential(
        make_layer(settings, pixels, settings.width, generator),
        nn.ReLU(),
        make_layer(settings, settings.width, settings.width, generator),
        nn.ReLU(),
        FullRank(settings.width, CLASSES, generator),
    )


def outer_factors(model: nn.Module) -> list[nn.Parameter]:
    """A of every factorized layer; none in a full-rank model."""
    return [layer.outer for layer in model.modules() if isinstance(layer, LowRank | Autoencoder)]


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
