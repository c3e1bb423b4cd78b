"""The encoder's pass over packed tokens: transformers' modules, but not their forward.

``EncoderPass`` reads the parameters of a RobertaModel in place. Where a part of a layer is as
transformers or :mod:`lora_bench.model.lora` made it, its parameters go through the functions of
:mod:`lora_bench.model.affine` and :mod:`lora_bench.model.functions`; where a method has replaced it
(an adapter, a PEFT layer, a 4-bit weight), the forward of that module is called.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import RobertaModel
from transformers.models.roberta.modeling_roberta import (
    RobertaIntermediate,
    RobertaLayer,
    RobertaOutput,
    RobertaSelfAttention,
    RobertaSelfOutput,
)

from .affine import Affine, Product, affine, stacked_bias
from .attention import attend
from .dropout import Dropout, DropoutStream, dropout, keep, rescale
from .functions import ResidualNorm
from .lora import LoraLinear, LoraRobertaSelfAttention
from .packing import Batch


class EncoderPass:
    """The pass of one encoder in one precision.

    Under bf16, matrix products and the activations between them are in bf16, the sums of LayerNorm
    and softmax in fp32. Trained parameters stay in fp32 and are cast in each step, frozen ones
    once.

    Args:
        encoder: whose modules are read at each call; a method may replace them between two calls.
        dtype: of the matrix products; None: that of the parameters.
    """

    def __init__(self, encoder: RobertaModel, dtype: torch.dtype | None = None):
        self.encoder, self.dtype = encoder, dtype
        self._made: dict[tuple[int, ...], _Made] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its products itself: those in the CPU's own order cannot be copied."""
        return {**vars(self), "_made": {}}

    def __call__(
        self, batch: Batch, stream: DropoutStream | None = None, *, first_only: bool = False
    ) -> Tensor:
        """Last hidden states (T, D), or (B, D) of the first tokens.

        Args:
            batch: packed tokens.
            stream: of the dropout masks.
            first_only: in the last layer, compute the outputs of first tokens only.
        """
        layers = self.encoder.encoder.layer
        x = self._embed(batch, stream) if batch.hidden is None else batch.hidden  # (T, D)
        x = _with_spare_rows(x, batch)
        for i in range(batch.depth, len(layers)):
            last = i == len(layers) - 1
            x = self._layer(layers[i], x, batch, stream, first_only=first_only and last)
        if not first_only:
            return x[: len(batch.input_ids)]
        return x if batch.depth < len(layers) else x[batch.first]

    def lower(self, batch: Batch, depth: int) -> Tensor:
        """The output of the first ``depth`` layers without dropout (T, D)."""
        x = _with_spare_rows(self._embed(batch, None), batch)
        for layer in self.encoder.encoder.layer[:depth]:
            x = self._layer(layer, x, batch, None)
        return x[: len(batch.input_ids)]

    def _embed(self, batch: Batch, stream: DropoutStream | None) -> Tensor:
        tables = self.encoder.embeddings
        total = tables.word_embeddings(batch.input_ids) + tables.position_embeddings(
            batch.position_ids
        )
        total = total + tables.token_type_embeddings(batch.token_type_ids)
        x = tables.LayerNorm(total)
        return dropout(x, _rate(tables.dropout), stream).to(self.dtype or total.dtype)

    def _layer(
        self,
        layer: RobertaLayer,
        x: Tensor,
        batch: Batch,
        stream: DropoutStream | None,
        first_only: bool = False,
    ) -> Tensor:
        """x (R, D) -> (R, D), or (B, D) of the first tokens."""
        attention = layer.attention.self
        if type(attention) not in (RobertaSelfAttention, LoraRobertaSelfAttention):
            with self._autocast(x):
                out = layer(x[None], layout=batch.layout, stream=stream)
            out = out[0][batch.first] if first_only else out[0]
            return out.to(x.dtype)
        x, mixed = self._attend(attention, x, batch, stream, first_only)
        x = self._output(layer.attention.output, mixed, x, stream)
        wide = self._intermediate(layer.intermediate, x, stream)
        return self._output(layer.output, wide, x, stream)

    def _attend(
        self,
        attention: RobertaSelfAttention,
        x: Tensor,
        batch: Batch,
        stream: DropoutStream | None,
        first_only: bool,
    ) -> tuple[Tensor, Tensor]:
        """x (R, D) -> the rows that go on, R or B of them: of x, and of attention's output."""
        a = attention
        rows, keys_values = x, None
        if first_only:
            rows = x[batch.first]  # (B, D)
            queries = self._project([a.query], rows, stream)
            keys_values = self._project([a.key, a.value], x, stream)  # (R, 2 D)
        else:
            queries = self._project([a.query, a.key, a.value], x, stream)  # (R, 3 D)
        p = _rate(a.dropout)
        heads, layout = a.num_attention_heads, batch.layout
        return rows, attend(queries, keys_values, layout, heads, a.scaling, p, stream)

    def _intermediate(
        self, block: RobertaIntermediate, x: Tensor, stream: DropoutStream | None
    ) -> Tensor:
        if type(block) is not RobertaIntermediate or _hooked(block):
            return self._call(block, x)
        return block.intermediate_act_fn(self._project([block.dense], x, stream))

    def _output(
        self,
        block: RobertaSelfOutput | RobertaOutput,
        h: Tensor,
        residual: Tensor,
        stream: DropoutStream | None,
    ) -> Tensor:
        """h (R, D or intermediate), residual (R, D) -> (R, D), or B rows for R."""
        plain = type(block) in (RobertaSelfOutput, RobertaOutput) and not _hooked(block)
        norm, drop = block.LayerNorm, block.dropout
        if not plain or type(drop) not in (nn.Dropout, Dropout) or type(norm) is not nn.LayerNorm:
            return self._call(block, h, residual)
        h = self._project([block.dense], h, stream)
        p = _rate(drop)
        mask = keep(h.shape, p, h.dtype, stream)
        weight: Tensor = norm.weight
        bias: Tensor = norm.bias
        if h.device.type != "cpu":  # only the CPU's LayerNorm takes fp32 weights with bf16
            weight, bias = weight.to(h.dtype), bias.to(h.dtype)
        return ResidualNorm.apply(h, residual, mask, rescale(p), weight, bias, norm.eps)

    def _project(
        self, modules: Sequence[nn.Module], x: Tensor, stream: DropoutStream | None
    ) -> Tensor:
        """Linear layers of one input, side by side: x (T, in) -> (T, sum of their outs)."""
        layers = [_affine_of(module, x, stream) for module in modules]
        known = [layer for layer in layers if layer is not None]
        if len(known) == len(layers):
            return affine(x, known, self._product(known, x.dtype), self._bias(known, x.dtype))
        outs = [self._call(module, x) for module in modules]
        return outs[0] if len(outs) == 1 else torch.cat(outs, 1)

    def _call(self, module: nn.Module, *inputs: Tensor) -> Tensor:
        with self._autocast(inputs[0]):
            return module(*inputs).to(inputs[0].dtype)

    def _autocast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16)

    def _product(self, layers: Sequence[Affine], dtype: torch.dtype) -> Product:
        weights = [layer.weight for layer in layers]
        return self._once(weights, lambda frozen: Product(layers, dtype, frozen))

    def _bias(self, layers: Sequence[Affine], dtype: torch.dtype) -> Tensor | None:
        biases = [layer.bias for layer in layers if layer.bias is not None]
        return self._once(biases, lambda _: stacked_bias(layers, dtype))

    def _once(self, parameters: Sequence[Tensor], make: Callable[[bool], Any]) -> Any:
        """What ``make`` gives of the parameters; of frozen ones it is kept until they change.

        Args:
            parameters: whose values decide.
            make: is told whether its result will be kept.
        """
        if any(p.requires_grad for p in parameters):
            return make(False)
        name = tuple(id(p) for p in parameters)
        state = [(p._version, p.data_ptr()) for p in parameters]
        held = self._made.get(name)
        if held is None or held.state != state or any(map(operator.is_not, held.of, parameters)):
            held = self._made[name] = _Made(list(parameters), state, make(True))
        return held.result


def _with_spare_rows(x: Tensor, batch: Batch) -> Tensor:
    """(T, D) -> (R, D); see ``Layout``."""
    return F.pad(x, (0, 0, 0, batch.layout.height - len(x)))


@dataclass(frozen=True)
class _Made:
    """A result, the parameters that it is of, and their state at that time."""

    of: list[Tensor]
    state: list[tuple[int, int]]
    result: Any


def _affine_of(module: Any, x: Tensor, stream: DropoutStream | None) -> Affine | None:
    """What the fused function needs of a linear layer; None: it is of another kind."""
    if type(module) not in (nn.Linear, LoraLinear) or _hooked(module):
        return None
    if type(module) is nn.Linear or module.merged or not module.enabled:
        return Affine(module.weight, module.bias)
    p = _rate(module.lora_dropout)
    mask = keep(x.shape, p, x.dtype, stream)
    update = (module.lora_a, module.lora_b, module.lora_scaling)
    return Affine(module.weight, module.bias, *update, mask, rescale(p))


def _hooked(module: nn.Module) -> bool:
    """Whether somebody listens to the module's forward, which would not be called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _rate(module: nn.Dropout) -> float:
    return module.p if module.training else 0.0
