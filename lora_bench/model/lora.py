"""LoRA by hand (Hu et al. 2021, arXiv 2106.09685): the layer, and self-attention with it."""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import RobertaConfig
from transformers.models.roberta.modeling_roberta import RobertaSelfAttention

from .dropout import Dropout


class LoraLinear(nn.Linear):
    """A linear layer plus a low-rank update: ``x W^T + b + scaling (x A^T) B^T``.

    ``weight`` (out, in) and ``bias`` keep their names, so a base checkpoint still fits; only
    ``lora_a`` (rank, in) and ``lora_b`` (out, rank) are new. B starts at zero: a fresh layer
    computes exactly what its base layer does.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether the base layer has one.
        rank: r, number of columns of B.
        alpha: numerator of the scaling.
        dropout: dropout probability on the input of the low-rank branch only.
        init: how A is initialized. ``kaiming``: uniform with a = sqrt(5), as in loralib and PEFT;
            ``gaussian``: N(0, 1), as in the article; ``gaussian_rank``: N(0, 1/rank), which makes
            the size of ``B A`` independent of the rank.
        rank_stabilized: scaling alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732) instead
            of alpha / rank.
        device: device of the parameters.
        dtype: type of the parameters.

    Raises:
        ValueError: the rank is not a whole number of 1 or more, alpha is not finite, or init is
            unknown.
    """

    adapter_names = ("lora_a", "lora_b")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        init: str = "kaiming",
        rank_stabilized: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise ValueError(f"rank={rank}: must be a whole number, 1 or more")
        if not math.isfinite(alpha):
            raise ValueError(f"alpha={alpha}: must be a finite number")
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.rank, self.alpha, self.init = rank, alpha, init
        self.lora_scaling = alpha / (math.sqrt(rank) if rank_stabilized else rank)
        self.lora_dropout = Dropout(dropout)
        self.lora_a = nn.Parameter(torch.empty(rank, in_features, device=device, dtype=dtype))
        self.lora_b = nn.Parameter(torch.empty(out_features, rank, device=device, dtype=dtype))
        self.merged = False
        self.enabled = True
        self.reset_lora()

    @classmethod
    def from_linear(cls, linear: nn.Linear, **lora: Any) -> "LoraLinear":
        """A layer that shares the weight and bias of ``linear``; ``lora`` as in the class."""
        # the meta device takes no memory and draws no numbers for weights that are replaced
        layer = cls(
            linear.in_features, linear.out_features, linear.bias is not None, device="meta", **lora
        )
        layer.weight, layer.bias = linear.weight, linear.bias
        for name in cls.adapter_names:
            empty = torch.empty_like(
                layer.get_parameter(name), device=linear.weight.device, dtype=linear.weight.dtype
            )
            setattr(layer, name, nn.Parameter(empty))
        layer.reset_lora()
        return layer.train(linear.training)

    def reset_lora(self, generator: torch.Generator | None = None) -> None:
        """Initialize A at random and set B to zero.

        Args:
            generator: source of the random numbers; None: torch's global generator.

        Raises:
            ValueError: the initialization is unknown.
        """
        if self.init == "kaiming":
            nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5), generator=generator)
        elif self.init in ("gaussian", "gaussian_rank"):
            std = 1.0 if self.init == "gaussian" else 1 / math.sqrt(self.rank)
            nn.init.normal_(self.lora_a, std=std, generator=generator)
        else:
            raise ValueError(f"init={self.init}: must be kaiming, gaussian or gaussian_rank")
        nn.init.zeros_(self.lora_b)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        base = self.base(x)
        if self.merged or not self.enabled:
            return base
        # (..., rank); forming B A first would cost an (out, in) product
        low = F.linear(self.lora_dropout(x), self.lora_a)
        rows, low = base.reshape(-1, self.out_features), low.reshape(-1, self.rank)
        # One product that adds to the base output: no second (..., out) tensor, no scaling pass.
        out = torch.addmm(rows, low, self.lora_b.t(), alpha=self.lora_scaling)
        return out.view(base.shape)

    def base(self, x: Tensor) -> Tensor:
        """The output of the layer without the update, (..., out)."""
        return F.linear(x, self.weight, self.bias)

    @torch.no_grad()
    def delta(self) -> Tensor:
        """The update to the weight, (out, in)."""
        return self.lora_b @ self.lora_a * self.lora_scaling

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the weight, so that inference costs the same as the base layer.

        A ``state_dict`` does not hold whether it is merged: call ``unmerge`` before saving one.

        Source: LoRA paper, section 4.1.

        Raises:
            RuntimeError: it is already merged, or switched off.
        """
        if self.merged:
            raise RuntimeError("already merged")
        if not self.enabled:
            raise RuntimeError("an update that is switched off cannot be merged")
        self.weight += self.delta()
        self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract the update again, up to float rounding.

        Raises:
            RuntimeError: it is not merged.
        """
        if not self.merged:
            raise RuntimeError("not merged")
        self.weight -= self.delta()
        self.merged = False

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{super().extra_repr()}, rank={self.rank}, alpha={self.alpha}"


class LoraRobertaSelfAttention(RobertaSelfAttention):
    """RoBERTa's self-attention with a low-rank update on some projections.

    The rest, softmax scale and attention dropout included, stays transformers' own, which is why
    nothing here is called ``scaling`` or ``dropout``.

    Args:
        config: configuration of the encoder.
        targets: projections with an update, among query, key and value.
        layer_idx: index of the layer.
        lora: rank, alpha, dropout, init, rank_stabilized of :class:`LoraLinear`.
    """

    def __init__(
        self,
        config: RobertaConfig,
        *,
        targets: Iterable[str] = ("query", "value"),
        layer_idx: int | None = None,
        **lora: Any,
    ):
        super().__init__(config, layer_idx=layer_idx)
        self._adapt(targets, lora)

    @classmethod
    def from_attention(
        cls, base: RobertaSelfAttention, targets: Iterable[str], **lora: Any
    ) -> "LoraRobertaSelfAttention":
        """An attention module that shares the projections of ``base``, in the same mode."""
        with torch.device("meta"):
            attention = cls(base.config, targets=(), layer_idx=base.layer_idx)
        attention.is_causal = base.is_causal
        for name, module in base.named_children():
            setattr(attention, name, module)
        attention.train(base.training)
        attention._adapt(targets, lora)
        return attention

    def _adapt(self, targets: Iterable[str], lora: dict[str, Any]) -> None:
        for name in targets:
            setattr(self, name, LoraLinear.from_linear(getattr(self, name), **lora))
