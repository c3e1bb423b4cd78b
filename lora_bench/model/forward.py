"""The encoder's pass over packed tokens: transformers' modules without their ``forward``.

``EncoderPass`` reads the parameters of one or more RobertaModels in place. Models of several runs
that share their frozen parameters go through one pass: shared parts are computed on the tokens of
all runs at once, each run's own parts on its own rows.

If a part of a layer is as transformers or :mod:`lora_bench.model.lora` made it, its parameters
go through the functions of :mod:`lora_bench.model.projection` and
:mod:`lora_bench.model.functions`; if a method has replaced it (an adapter, a PEFT layer, a 4-bit
weight), the forward of that module is called.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import RobertaModel
from transformers.models.roberta.modeling_roberta import (
    RobertaEmbeddings,
    RobertaIntermediate,
    RobertaLayer,
    RobertaOutput,
    RobertaSelfAttention,
    RobertaSelfOutput,
)

from .attention import attend
from .dropout import Dropout, DropoutStream, keep, rescale
from .functions import ResidualNorm
from .layout import Layout
from .lora import LoraRobertaSelfAttention
from .packing import Batch
from .projection import Projection, Share, cat, each, hooked, rate, shared, shares_of

Output = RobertaSelfOutput | RobertaOutput


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
    """

    def __init__(
        self,
        encoders: Sequence[RobertaModel],
        dtype: torch.dtype | None = None,
        *,
        checkpointing: bool = False,
    ):
        self.encoders, self.checkpointing = list(encoders), checkpointing
        self.project = Projection(dtype)

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
        shares = shares_of(batch.layout, chosen)
        depth = len(self.encoders[0].encoder.layer)
        again = self.checkpointing and torch.is_grad_enabled()
        layer = self._checkpointed if again else self._layer
        x = _with_spare_rows(self._lowest(batch, chosen), batch.layout)
        for i in range(batch.depth, depth):
            last = first_only and i == depth - 1
            x = layer(i, x, batch.layout, shares, first_only=last)
        if not first_only:
            return [x[part.rows][: part.tokens] for part in batch.layout.parts]
        if batch.depth == depth:
            x = x[batch.layout.first_rows]
        return [x[part.examples] for part in batch.layout.parts]

    def lower(self, batch: Batch, depth: int) -> Tensor:
        """The output of one run's first ``depth`` layers, without dropout (T, D)."""
        shares = shares_of(batch.layout, [None])
        x = _with_spare_rows(self._lowest(batch, [None]), batch.layout)
        for i in range(depth):
            x = self._layer(i, x, batch.layout, shares)
        return x[: len(batch.input_ids)]

    def _lowest(self, batch: Batch, streams: Sequence[DropoutStream | None]) -> Tensor:
        """The input of the lowest layer that is computed (T, D)."""
        if batch.hidden is not None:
            return batch.hidden
        tables = [encoder.embeddings for encoder in self.encoders]
        counts = [part.tokens for part in batch.layout.parts]
        x = _embed(tables, batch, counts)
        p = rate(tables[0].dropout)
        ends = accumulate(counts)
        rows = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        mask = keep(x.shape, p, x, list(zip(rows, streams, strict=True)))
        if mask is not None:
            x = x * (mask * rescale(p))
        return x.to(self.project.dtype or x.dtype)

    def _layer(
        self,
        index: int,
        x: Tensor,
        layout: Layout,
        shares: Sequence[Share],
        first_only: bool = False,
    ) -> Tensor:
        """x (R, D) -> (R, D), or (B, D) for the first tokens."""
        layers = [encoder.encoder.layer[index] for encoder in self.encoders]
        attentions = [layer.attention.self for layer in layers]
        if not all(type(a) in (RobertaSelfAttention, LoraRobertaSelfAttention) for a in attentions):
            return self._whole(layers, x, layout, shares, first_only)
        x, mixed = self._attend(attentions, x, layout, shares, first_only)
        if first_only:
            shares = shares_of(layout.first, [share.stream for share in shares])
        x = self._output([layer.attention.output for layer in layers], mixed, x, shares)
        wide = self._intermediate([layer.intermediate for layer in layers], x, shares)
        return self._output([layer.output for layer in layers], wide, x, shares)

    def _checkpointed(
        self, index: int, x: Tensor, layout: Layout, shares: Sequence[Share], *, first_only: bool
    ) -> Tensor:
        """``_layer``, recomputed in the backward pass; same arguments."""
        streams = [share.stream for share in shares if share.stream is not None]
        before = [stream.state() for stream in streams]
        again = False

        def layer(x: Tensor) -> Tensor:
            nonlocal again
            if not again:
                again = True
                return self._layer(index, x, layout, shares, first_only)
            now = [stream.state() for stream in streams]
            _restore(streams, before)
            try:  # torch raises an exception once it has what the backward pass needs
                return self._layer(index, x, layout, shares, first_only)
            finally:
                _restore(streams, now)

        return checkpoint(layer, x, use_reentrant=False)

    def _whole(
        self,
        layers: Sequence[RobertaLayer],
        x: Tensor,
        layout: Layout,
        shares: Sequence[Share],
        first_only: bool,
    ) -> Tensor:
        """A layer whose attention a method has replaced, through its own forward."""
        if len(layers) > 1:
            raise TypeError("a method that replaces the attention cannot be trained in a group")
        with self.project.autocast(x):
            out = layers[0](x[None], layout=layout, stream=shares[0].stream)[0]
        return (out[layout.first_rows] if first_only else out).to(x.dtype)

    def _attend(
        self,
        attentions: Sequence[RobertaSelfAttention],
        x: Tensor,
        layout: Layout,
        shares: Sequence[Share],
        first_only: bool,
    ) -> tuple[Tensor, Tensor]:
        """x (R, D) -> the R or B rows to continue with: of x, and of the attention output."""
        rows, keys_values = x, None
        if first_only:
            rows = x[layout.first_rows]  # (B, D)
            firsts = shares_of(layout.first, [share.stream for share in shares])
            queries = self.project([[a.query] for a in attentions], rows, firsts)
            keys_values = self.project([[a.key, a.value] for a in attentions], x, shares)
        else:
            queries = self.project([[a.query, a.key, a.value] for a in attentions], x, shares)
        a = attentions[0]
        heads, p = a.num_attention_heads, rate(a.dropout)
        streams = [share.stream for share in shares]
        return rows, attend(queries, keys_values, layout, heads, a.scaling, p, streams)

    def _intermediate(
        self, blocks: Sequence[RobertaIntermediate], x: Tensor, shares: Sequence[Share]
    ) -> Tensor:
        if any(type(block) is not RobertaIntermediate or hooked(block) for block in blocks):
            return each(blocks, shares, lambda block, rows: self.project.call(block, x[rows]))
        wide = self.project([[block.dense] for block in blocks], x, shares)
        return blocks[0].intermediate_act_fn(wide)

    def _output(
        self, blocks: Sequence[Output], h: Tensor, residual: Tensor, shares: Sequence[Share]
    ) -> Tensor:
        """h (R, D or intermediate), residual (R, D) -> (R, D), or B rows for R."""
        if not all(map(_standard_output, blocks)):
            return each(
                blocks,
                shares,
                lambda block, rows: self.project.call(block, h[rows], residual[rows]),
            )
        h = self.project([[block.dense] for block in blocks], h, shares)
        if not all(map(_standard_end, blocks)):
            return each(
                blocks, shares, lambda block, rows: self._end(block, h[rows], residual[rows])
            )
        p = rate(blocks[0].dropout)
        mask = keep(h.shape, p, h, [(share.rows, share.stream) for share in shares])
        norms = [block.LayerNorm for block in blocks]
        if _shared_norm(norms):
            return _residual_norm(norms[0], h, residual, mask, p)
        return torch.cat(
            [
                _residual_norm(
                    norm,
                    h[share.rows],
                    residual[share.rows],
                    None if mask is None else mask[share.rows],
                    p,
                )
                for norm, share in zip(norms, shares, strict=True)
            ]
        )

    def _end(self, block: Output, h: Tensor, residual: Tensor) -> Tensor:
        """What follows the linear layer of an output block, through its own modules."""
        with self.project.autocast(h):
            return block.LayerNorm(block.dropout(h) + residual).to(residual.dtype)


def _embed(tables: Sequence[RobertaEmbeddings], batch: Batch, counts: Sequence[int]) -> Tensor:
    """The embeddings of all tokens (T, D).

    Args:
        tables: embedding tables of each run.
        batch: tokens of all runs.
        counts: number of tokens of each run.
    """
    ids = torch.stack([batch.input_ids, batch.position_ids, batch.token_type_ids])  # (3, T)
    weights = [list(table.parameters()) for table in tables]
    if all(map(shared, zip(*weights, strict=True))):
        return _embed_one(tables[0], ids)
    pairs = zip(tables, ids.split(counts, 1), strict=True)
    return torch.cat([_embed_one(table, own) for table, own in pairs])


def _embed_one(table: RobertaEmbeddings, ids: Tensor) -> Tensor:
    words, positions, types = ids
    total = table.word_embeddings(words) + table.position_embeddings(positions)
    return table.LayerNorm(total + table.token_type_embeddings(types))


def _restore(streams: Sequence[DropoutStream], states: Sequence[Any]) -> None:
    for stream, state in zip(streams, states, strict=True):
        stream.restore(state)


def _with_spare_rows(x: Tensor, layout: Layout) -> Tensor:
    """(T, D) -> (R, D); see ``Layout``."""
    pieces = x.split([part.tokens for part in layout.parts])
    padded = [
        F.pad(piece, (0, 0, 0, part.spare.stop - part.spare.start))
        for piece, part in zip(pieces, layout.parts, strict=True)
    ]
    return cat(padded)


def _shared_norm(norms: Sequence[nn.LayerNorm]) -> bool:
    return shared([norm.weight for norm in norms]) and shared([norm.bias for norm in norms])


def _residual_norm(
    norm: nn.LayerNorm, h: Tensor, residual: Tensor, mask: Tensor | None, p: float
) -> Tensor:
    """``norm(residual + dropout of h)``; all (R, D)."""
    weight: Tensor = norm.weight
    bias: Tensor = norm.bias
    if h.device.type != "cpu":  # only the CPU's LayerNorm takes fp32 weights with bf16
        weight, bias = weight.to(h.dtype), bias.to(h.dtype)
    return ResidualNorm.apply(h, residual, mask, rescale(p), weight, bias, norm.eps)


def _standard_output(block: Output) -> bool:
    return type(block) in (RobertaSelfOutput, RobertaOutput) and not hooked(block)


def _standard_end(block: Output) -> bool:
    return type(block.dropout) in (nn.Dropout, Dropout) and type(block.LayerNorm) is nn.LayerNorm
