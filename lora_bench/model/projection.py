"""Linear layers that share an input, for one or more runs, as one matrix product where possible.

``Projection`` applies the frozen weights that runs share to the tokens of all runs at once, and
each run's own parts to its own rows. Where the layers are fixed, what it derives from frozen
parameters, such as their cast to bf16, is kept until they change.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .affine import affine, stacked_bias
from .dropout import DropoutStream, keep, rescale
from .layers import Affine, Layers, Parts
from .lora import LoraLinear
from .product import Product, cat
from .rows import Rows, Share
from .tables import on_gpu


class Projection:
    """Linear layers side by side, in one precision.

    Args:
        dtype: type of the matrix products; None: the type of the parameters.
        fixed: whether the caller guarantees that the layers do not change: their modules and
            parameters, which of these are trained, which updates are merged, and the values of
            frozen ones (a write through ``.data`` would go unnoticed). Inspecting them at each
            call takes longer than a GPU needs for their products.
    """

    def __init__(self, dtype: torch.dtype | None = None, *, fixed: bool = False):
        self.dtype, self.fixed = dtype, fixed
        self._made: dict[tuple[int, ...], _Made] = {}
        self._plans: dict[tuple[int, int], _Plan | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own products: those in the CPU's layout cannot be copied."""
        return {**vars(self), "_made": {}, "_plans": {}}

    def __call__(self, modules: Sequence[Sequence[nn.Module]], x: Tensor, rows: Rows) -> Tensor:
        """Linear layers that share an input, side by side: x (T, in) -> (T, sum of their outputs).

        Args:
            modules: the linear layers of each run.
            x: the input rows of all runs.
            rows: where each run's rows are.
        """
        shares = rows.shares
        plan = self._plan(modules, x, shares)
        if plan is None:
            return each(
                modules,
                shares,
                lambda own, part: cat([self.call(m, x[part]) for m in own], dim=1),
            )
        runs = plan.layers.runs
        if not plan.shared:
            return torch.cat(
                [
                    affine(
                        x[share.rows],
                        Layers([own]),
                        Parts([share.alone.rows]),
                        self._product(own, x.dtype),
                        self._bias(own, x.dtype),
                    )
                    for own, share in zip(runs, shares, strict=True)
                ]
            )
        product = self._product(runs[0], x.dtype)
        bias = self._bias(runs[0], x.dtype) if plan.one_bias else None
        biases = None if plan.one_bias else [self._bias(own, x.dtype) for own in runs]
        layout, grouped = rows.layout, on_gpu(x.device)
        parts = Parts(
            [share.rows for share in shares],
            biases,
            layout.ends if grouped else None,
            layout.owners if grouped and layout.source is None else None,
        )
        return affine(x, plan.layers, parts, product, bias)

    def _plan(
        self, modules: Sequence[Sequence[nn.Module]], x: Tensor, shares: Sequence[Share]
    ) -> "_Plan | None":
        """How to compute layers; None: by their own forward. Kept if the modules are fixed."""
        key = (id(modules[0][0]), len(modules[0]))
        if self.fixed and key in self._plans:
            return self._plans[key]
        plan = None
        if all(_fusible(module) for own in modules for module in own):
            layers = [
                [_affine_of(module, x[share.rows], share.stream) for module in own]
                for own, share in zip(modules, shares, strict=True)
            ]
            places = list(zip(*layers, strict=True))  # the layers of all runs at each place
            plan = _Plan(
                Layers(layers),
                all(shared([layer.weight for layer in place]) for place in places),
                all(shared([layer.bias for layer in place]) for place in places),
            )
        if self.fixed and not any(_draws(module) for own in modules for module in own):
            self._plans[key] = plan
        return plan

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
        """The result of ``make``, kept until the parameters change if they are fixed and frozen.

        Args:
            parameters: the parameters that the result is computed from.
            make: called with whether its result will be kept.
        """
        if not self.fixed or any(p.requires_grad for p in parameters):
            return make(False)
        key = tuple(id(p) for p in parameters)
        state = [(p._version, p.data_ptr()) for p in parameters]
        held = self._made.get(key)
        if held is None or held.state != state:  # it keeps its parameters, so no id is reused
            held = self._made[key] = _Made(list(parameters), state, make(True))
        return held.result


@dataclass(frozen=True)
class _Plan:
    """Layers, and whether the runs share all their weights, and all their biases."""

    layers: Layers
    shared: bool
    one_bias: bool


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


def _draws(module: nn.Module) -> bool:
    """Whether a layer has a dropout of its own, in training."""
    return isinstance(module, LoraLinear) and module.lora_dropout.p > 0


def hooked(module: nn.Module) -> bool:
    """Whether the module has forward hooks, which would not be called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def rate(module: nn.Dropout) -> float:
    """Share of entries that a dropout module sets to 0 in its current mode."""
    return module.p if module.training else 0.0
