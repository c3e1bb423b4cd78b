"""The encoder's pass over packed tokens: transformers' modules without their ``forward``.

``EncoderPass`` reads the parameters of one or more RobertaModels in place. Models of several runs
that share their frozen parameters go through one pass: shared parts are computed on the tokens of
all runs at once, each run's own parts on its own rows.

If a part of a layer is as transformers or :mod:`lora_bench.model.lora` made it, its parameters
go through the functions of :mod:`lora_bench.model.projection` and
:mod:`lora_bench.model.functions`; if a method has replaced it (an adapter, a PEFT layer, a 4-bit
weight), the forward of that module is called.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import RobertaModel
from transformers.models.roberta.modeling_roberta import (
    RobertaIntermediate,
    RobertaLayer,
    RobertaSelfAttention,
)

from .attention import attend
from .blocks import Blocks, Output, end_of, is_fusible, is_standard, linears_of
from .dropout import DropoutStream, keep, rescale
from .embeddings import embed
from .functions import ResidualNorm
from .fused import Mask, keep_mask, residual_norm, usable
from .inject import ATTENTION_TARGETS
from .layout import Layout
from .packing import Batch
from .product import cat
from .projection import Projection, each, rate
from .rows import Rows

SITES = 3  # dropout masks of a layer: attention weights, and the ends of both blocks


class EncoderPass:
    """The pass of the encoders of one or more runs in one precision.

    Under bf16, matrix products and the activations between them are in bf16, the sums in LayerNorm
    and softmax in fp32. Trained parameters stay in fp32 and are cast in each step; frozen ones are
    cast once.

    Args:
        encoders: one for each run, with one architecture and equal dropout. Their modules are
            read at each call; a method may replace them between two calls.
        dtype: type of the matrix products; None: the type of the parameters.
        checkpointing: keep only each layer's input for the backward pass, which recomputes the
            layer with the same dropout masks (Chen et al. 2016, arXiv 1604.06174).
        fixed: whether the modules stay as they are, see ``Projection``.
    """

    def __init__(
        self,
        encoders: Sequence[RobertaModel],
        dtype: torch.dtype | None = None,
        *,
        checkpointing: bool = False,
        fixed: bool = False,
    ):
        self.encoders, self.checkpointing = list(encoders), checkpointing
        self.project = Projection(dtype, fixed=fixed)
        self._kept: dict[tuple[str | int, ...], Any] = {}

    def _once(self, key: tuple[str | int, ...], make: Callable[[], Any]) -> Any:
        """The result of ``make``, which is kept if the modules are fixed."""
        if not self.project.fixed:
            return make()
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def __call__(
        self,
        batch: Batch,
        streams: Sequence[DropoutStream | None] | None = None,
        *,
        first_only: bool = False,
    ) -> list[Tensor]:
        """The last hidden states of each run.

        Args:
            batch: packed tokens of as many runs as there are encoders.
            streams: streams for the dropout masks of each run.
            first_only: whether the last layer computes the outputs of first tokens only.

        Returns:
            (T, D) for each run, or (B, D) for its first tokens.
        """
        chosen = [None] * len(self.encoders) if streams is None else streams
        rows = Rows.of(batch.layout, chosen, drops=self.encoders[0].training)
        depth = len(self.encoders[0].encoder.layer)
        again = self.checkpointing and torch.is_grad_enabled()
        layer = self._checkpointed if again else self._layer
        x = _with_spare_rows(self._lowest(batch, rows), batch.layout)
        for i in range(batch.depth, depth):
            last = first_only and i == depth - 1
            x = layer(i, x, rows, first_only=last)
        if not first_only:
            return [x[part.rows][: part.tokens] for part in batch.layout.parts]
        if batch.depth == depth:
            x = x[batch.layout.first_rows]
        return [x[part.examples] for part in batch.layout.parts]

    def lower(self, batch: Batch, depth: int) -> Tensor:
        """The output of one run's first ``depth`` layers, without dropout (T, D)."""
        rows = Rows(batch.layout, [None])
        x = _with_spare_rows(self._lowest(batch, rows), batch.layout)
        for i in range(depth):
            x = self._layer(i, x, rows)
        return x[: len(batch.input_ids)]

    def _lowest(self, batch: Batch, rows: Rows) -> Tensor:
        """The input of the lowest layer that is computed (T, D)."""
        if batch.hidden is not None:
            return batch.hidden
        tables = [encoder.embeddings for encoder in self.encoders]
        counts = [part.tokens for part in batch.layout.parts]
        x = embed(tables, batch, counts)
        p = rate(tables[0].dropout)
        if usable(x):
            site = SITES * len(self.encoders[0].encoder.layer)
            mask = Mask(rows.keys, site, p)
            kept = keep_mask(rows.layout.token_owners, x.shape[1], mask, x.dtype)
        else:
            ends = accumulate(counts)
            own = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
            kept = keep(x.shape, p, x, list(zip(own, rows.streams, strict=True)))
        if kept is not None:
            x = x * (kept * rescale(p))
        return x.to(self.project.dtype or x.dtype)

    def _layer(
        self,
        index: int,
        x: Tensor,
        rows: Rows,
        first_only: bool = False,
    ) -> Tensor:
        """x (R, D) -> (R, D), or (B, D) for the first tokens."""
        blocks = self._once(("layer", index), lambda: Blocks.of(self.encoders, index))
        if not blocks.standard:
            return self._whole(blocks.layers, x, rows, first_only)
        site = SITES * index
        x, mixed = self._attend(blocks.attentions, x, rows, first_only, site)
        if first_only:
            rows = rows.first
        x = self._output(blocks.attention_outputs, mixed, x, rows, site + 1)
        wide = self._intermediate(blocks.intermediates, x, rows)
        return self._output(blocks.outputs, wide, x, rows, site + 2)

    def _checkpointed(self, index: int, x: Tensor, rows: Rows, *, first_only: bool) -> Tensor:
        """``_layer``, recomputed in the backward pass; same arguments."""
        streams = [stream for stream in rows.streams if stream is not None]
        before = [stream.state() for stream in streams]
        again = False

        def layer(x: Tensor) -> Tensor:
            nonlocal again
            if not again:
                again = True
                return self._layer(index, x, rows, first_only)
            now = [stream.state() for stream in streams]
            _restore(streams, before)
            try:  # torch raises an exception once it has what the backward pass needs
                return self._layer(index, x, rows, first_only)
            finally:
                _restore(streams, now)

        return checkpoint(layer, x, use_reentrant=False)

    def _whole(
        self,
        layers: Sequence[RobertaLayer],
        x: Tensor,
        rows: Rows,
        first_only: bool,
    ) -> Tensor:
        """A layer whose attention a method has replaced, through its own forward."""
        if len(layers) > 1:
            raise TypeError("a method that replaces the attention cannot be trained in a group")
        with self.project.autocast(x):
            out = layers[0](x[None], layout=rows.layout, stream=rows.streams[0])[0]
        return (out[rows.layout.first_rows] if first_only else out).to(x.dtype)

    def _attend(
        self,
        attentions: Sequence[RobertaSelfAttention],
        x: Tensor,
        rows: Rows,
        first_only: bool,
        site: int,
    ) -> tuple[Tensor, Tensor]:
        """x (R, D) -> the residual and the attention output, each (R, D), or (B, D)."""
        asking, keys_values = x, None
        if first_only:
            asking = x[rows.layout.first_rows]  # (B, D)
            queries = self._project(("query",), attentions, asking, rows.first)
            keys_values = self._project(("key", "value"), attentions, x, rows)
        else:
            queries = self._project(ATTENTION_TARGETS, attentions, x, rows)
        a = attentions[0]
        heads, mask = a.num_attention_heads, Mask(rows.keys, site, rate(a.dropout))
        return asking, attend(queries, keys_values, rows, heads, a.scaling, mask)

    def _project(
        self,
        names: Sequence[str],
        attentions: Sequence[RobertaSelfAttention],
        x: Tensor,
        rows: Rows,
    ) -> Tensor:
        """Some linear layers of each run's attention, by name, side by side."""
        made = self._once(
            ("attention", id(attentions[0]), len(names)),
            lambda: [[getattr(a, name) for name in names] for a in attentions],
        )
        return self.project(made, x, rows)

    def _intermediate(self, blocks: Sequence[RobertaIntermediate], x: Tensor, rows: Rows) -> Tensor:
        linears = self._once(("intermediate", id(blocks[0])), lambda: linears_of(blocks))
        if linears is None:
            return each(blocks, rows.shares, lambda block, own: self.project.call(block, x[own]))
        wide = self.project(linears, x, rows)
        return blocks[0].intermediate_act_fn(wide)

    def _output(
        self, blocks: Sequence[Output], h: Tensor, residual: Tensor, rows: Rows, site: int
    ) -> Tensor:
        """h (R, D or intermediate), residual (R, D) -> (R, D), or B rows for R."""
        kind = self._once(("end", site), lambda: end_of(blocks))
        if kind.standard:
            h = self.project(kind.linears, h, rows)
        if kind.one_norm:
            return self._fused_end(blocks[0], h, residual, rows, site)
        outs = []
        for run, (block, share) in enumerate(zip(blocks, rows.shares, strict=True)):
            own, rest = h[share.rows], residual[share.rows]
            if not is_standard(block):
                outs.append(self.project.call(block, own, rest))
                continue
            if not kind.standard:
                own = self.project.call(block.dense, own)
            if is_fusible(block):
                outs.append(self._fused_end(block, own, rest, rows, site, run))
            else:
                outs.append(self._end(block, own, rest))
        return cat(outs)

    def _fused_end(
        self,
        block: Output,
        h: Tensor,
        residual: Tensor,
        rows: Rows,
        site: int,
        run: int | None = None,
    ) -> Tensor:
        """``LayerNorm(residual + dropout of h)``.

        Args:
            block: its dropout and LayerNorm.
            h: (n, D), all rows or those of one run.
            residual: (n, D).
            rows: all rows.
            site: number of the dropout mask in the pass.
            run: the run that the n rows belong to; None: they are all rows.
        """
        p, norm = rate(block.dropout), block.LayerNorm
        shares = rows.shares if run is None else [rows.shares[run].alone]
        if usable(h):
            owners = rows.layout.owners
            own = owners if run is None else owners[rows.shares[run].rows]
            return residual_norm(norm, h, residual, own, Mask(rows.keys, site, p))
        mask = keep(h.shape, p, h, [(share.rows, share.stream) for share in shares])
        return _residual_norm(norm, h, residual, mask, p)

    def _end(self, block: Output, h: Tensor, residual: Tensor) -> Tensor:
        """What follows the linear layer of an output block, through its own modules."""
        with self.project.autocast(h):
            return block.LayerNorm(block.dropout(h) + residual).to(residual.dtype)


def _restore(streams: Sequence[DropoutStream], states: Sequence[Any]) -> None:
    for stream, state in zip(streams, states, strict=True):
        stream.restore(state)


def _with_spare_rows(x: Tensor, layout: Layout) -> Tensor:
    """(T, D) -> (R, D); see ``Layout``."""
    tokens = x.split([part.tokens for part in layout.parts])
    padded = [
        F.pad(own, (0, 0, 0, part.spare.stop - part.spare.start))
        for own, part in zip(tokens, layout.parts, strict=True)
    ]
    return cat(padded)


def _residual_norm(
    norm: nn.LayerNorm, h: Tensor, residual: Tensor, mask: Tensor | None, p: float
) -> Tensor:
    """``norm(residual + dropout of h)``; all (R, D)."""
    weight: Tensor = norm.weight
    bias: Tensor = norm.bias
    if h.device.type != "cpu":  # only the CPU's LayerNorm takes fp32 weights with bf16
        weight, bias = weight.to(h.dtype), bias.to(h.dtype)
    return ResidualNorm.apply(h, residual, mask, rescale(p), weight, bias, norm.eps)
