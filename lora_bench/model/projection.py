"""Linear layers with one input, for one or more runs, as one matrix product where possible.

``Projection`` applies the frozen weights that runs share to the tokens of all runs at once, and
each run's own parts to its own rows. What it derives from frozen parameters, such as their cast to
bf16, is kept until they change.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .affine import Affine, Segment, affine, stacked_bias
from .dropout import DropoutStream, keep, rescale
from .layout import Layout
from .lora import LoraLinear
from .product import Product


@dataclass(frozen=True)
class Share:
    """A run's rows of the activations, and the stream of its dropout masks."""

    rows: slice
    stream: DropoutStream | None

    @property
    def alone(self) -> "Share":
        """The share of an input that holds only its own rows."""
        return Share(slice(0, self.rows.stop - self.rows.start), self.stream)


def shares_of(layout: Layout, streams: Sequence[DropoutStream | None]) -> list[Share]:
    """The share of each run in the rows of a layout."""
    pairs = zip(layout.parts, streams, strict=True)
    return [Share(part.rows, stream) for part, stream in pairs]


class Projection:
    """Linear layers side by side, in one precision.

    Args:
        dtype: type of the matrix products; None: the type of the parameters.
    """

    def __init__(self, dtype: torch.dtype | None = None):
        self.dtype = dtype
        self._made: dict[tuple[int, ...], _Made] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own products: those in the CPU's layout cannot be copied."""
        return {**vars(self), "_made": {}}

    def __call__(
        self, modules: Sequence[Sequence[nn.Module]], x: Tensor, shares: Sequence[Share]
    ) -> Tensor:
        """Linear layers with one input, side by side: x (T, in) -> (T, sum of their outputs).

        Args:
            modules: the linear layers of each run.
            x: the input rows of all runs.
            shares: the share of each run.
        """
        if not all(_fusible(module) for own in modules for module in own):
            return each(
                modules,
                shares,
                lambda own, rows: cat([self.call(m, x[rows]) for m in own], dim=1),
            )
        layers = [
            [_affine_of(module, x[share.rows], share.stream) for module in own]
            for own, share in zip(modules, shares, strict=True)
        ]
        places = list(zip(*layers, strict=True))  # the layers of all runs at each place
        if not all(shared([layer.weight for layer in place]) for place in places):
            outs = [
                affine(
                    x[share.rows],
                    [Segment(share.alone.rows, own)],
                    self._product(own, x.dtype),
                    self._bias(own, x.dtype),
                )
                for own, share in zip(layers, shares, strict=True)
            ]
            return torch.cat(outs)
        one_bias = all(shared([layer.bias for layer in place]) for place in places)
        segments = [
            Segment(share.rows, own, None if one_bias else self._bias(own, x.dtype))
            for own, share in zip(layers, shares, strict=True)
        ]
        bias = self._bias(layers[0], x.dtype) if one_bias else None
        return affine(x, segments, self._product(layers[0], x.dtype), bias)

    def call(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        """A module's own forward, in this precision."""
        with self.autocast(inputs[0]):
            return module(*inputs).to(inputs[0].dtype)

    def autocast(self, x: Tensor) -> torch.autocast:
        """The context in which third-party modules compute in this precision, on x's device."""
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16)

    def _product(self, layers: Sequence[Affine], dtype: torch.dtype) -> Product:
        weights = [layer.weight for layer in layers]
        return self._once(weights, lambda frozen: Product(weights, dtype, frozen))

    def _bias(self, layers: Sequence[Affine], dtype: torch.dtype) -> Tensor | None:
        biases = [layer.bias for layer in layers if layer.bias is not None]
        return self._once(biases, lambda _: stacked_bias(layers, dtype))

    def _once(self, parameters: Sequence[Tensor], make: Callable[[bool], Any]) -> Any:
        """The result of ``make``; it is kept until the parameters change if all are frozen.

        Args:
            parameters: the parameters that the result is computed from.
            make: called with whether its result will be kept.
        """
        if any(p.requires_grad for p in parameters):
            return make(False)
        name = tuple(id(p) for p in parameters)
        state = [(p._version, p.data_ptr()) for p in parameters]
        held = self._made.get(name)
        if held is None or held.state != state or any(map(operator.is_not, held.of, parameters)):
            held = self._made[name] = _Made(list(parameters), state, make(True))
        return held.result


@dataclass(frozen=True)
class _Made:
    """A result, the parameters that it was computed from, and their state at that time."""

    of: list[Tensor]
    state: list[tuple[int, int]]
    result: Any


def each(
    modules: Sequence[Any],
    shares: Sequence[Share],
    function: Callable[[Any, slice], Tensor],
) -> Tensor:
    """The output of each run's own module for its rows, one run after the other."""
    pairs = zip(modules, shares, strict=True)
    return cat([function(module, share.rows) for module, share in pairs])


def cat(pieces: Sequence[Tensor], dim: int = 0) -> Tensor:
    """``torch.cat`` that returns a single piece without a copy."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim)


def shared(parameters: Sequence[Tensor | None]) -> bool:
    """Whether all runs use the same parameter; true for a single run."""
    first = parameters[0]
    if len(parameters) == 1:
        return True
    if first is None:
        return all(p is None for p in parameters)
    return all(
        p is not None and not p.requires_grad and p.data_ptr() == first.data_ptr()
        for p in parameters
    )


def _fusible(module: nn.Module) -> bool:
    """Whether the fused function can compute a linear layer."""
    return type(module) in (nn.Linear, LoraLinear) and not hooked(module)


def _affine_of(module: Any, x: Tensor, stream: DropoutStream | None) -> Affine:
    """What the fused function needs from a linear layer with input x (T, in)."""
    if type(module) is nn.Linear or module.merged or not module.enabled:
        return Affine(module.weight, module.bias)
    p = rate(module.lora_dropout)
    mask = keep(x.shape, p, x, [(slice(0, len(x)), stream)])
    update = (module.lora_a, module.lora_b, module.lora_scaling)
    return Affine(module.weight, module.bias, *update, mask, rescale(p))


def hooked(module: nn.Module) -> bool:
    """Whether the module has forward hooks, which would not be called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def rate(module: nn.Dropout) -> float:
    """Share of entries that a dropout module sets to 0 in its current mode."""
    return module.p if module.training else 0.0
