"""A straightforward encoder: one example after the other, plain autograd, no packing.

Takes its masks from a stream in the order of :class:`lora_bench.model.forward.EncoderPass`, so that
the two can be compared with dropout on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import RobertaModel

from lora_bench.model.dropout import DropoutStream, rescale
from lora_bench.model.lora import LoraLinear
from lora_bench.model.packing import Batch


def encode_plainly(
    encoder: RobertaModel,
    batch: Batch,
    stream: DropoutStream | None = None,
    first_only: bool = False,
) -> Tensor:
    """Last hidden states (T, D), or (B, D) of the first tokens."""
    tables = encoder.embeddings
    x = tables.word_embeddings(batch.input_ids) + tables.position_embeddings(batch.position_ids)
    x = tables.LayerNorm(x + tables.token_type_embeddings(batch.token_type_ids))
    x = _drop(x, tables.dropout, stream)
    last = len(encoder.encoder.layer) - 1
    for index, layer in enumerate(encoder.encoder.layer):
        first = first_only and index == last
        rows = x[batch.first] if first else x
        attention = layer.attention.self
        q = _linear(attention.query, rows, stream)
        k, v = (_linear(module, x, stream) for module in (attention.key, attention.value))
        mixed = _attend(attention, (q, k, v), batch, first, stream)
        x = _block(layer.attention.output, mixed, rows, stream)
        wide = layer.intermediate.intermediate_act_fn(_linear(layer.intermediate.dense, x, stream))
        x = _block(layer.output, wide, x, stream)
    return x


def _attend(attention, qkv: tuple[Tensor, ...], batch: Batch, first: bool, stream) -> Tensor:
    """One example and head after the other; a mask is drawn for each draw of the batch's layout."""
    out = torch.empty_like(qkv[0])
    heads, p = attention.num_attention_heads, attention.dropout.p if attention.training else 0.0
    for draw in batch.layout.draws:
        asking = 1 if first else draw.longest
        shape = torch.Size([len(draw.examples), heads, asking, draw.longest])
        keep = torch.ones(shape, dtype=out.dtype)
        if p > 0:
            keep = stream.keep(shape, p, out.dtype) * rescale(p)
        for place, example in enumerate(draw.examples.tolist()):
            start, end = batch.cu_seqlens[example : example + 2].tolist()
            rows = slice(example, example + 1) if first else slice(start, end)
            parts = (qkv[0][rows], qkv[1][start:end], qkv[2][start:end])
            q, k, v = (x.unflatten(1, (heads, -1)).transpose(0, 1) for x in parts)  # (h, n, d)
            weights = (q @ k.transpose(1, 2) * attention.scaling).softmax(-1)
            weights = weights * keep[place, :, : q.shape[1], : k.shape[1]]
            out[rows] = (weights @ v).transpose(0, 1).flatten(1)
    return out


def _block(block: nn.Module, h: Tensor, residual: Tensor, stream) -> Tensor:
    return block.LayerNorm(residual + _drop(_linear(block.dense, h, stream), block.dropout, stream))


def _linear(module: nn.Linear, x: Tensor, stream: DropoutStream | None) -> Tensor:
    out = F.linear(x, module.weight, module.bias)
    if isinstance(module, LoraLinear) and module.enabled and not module.merged:
        low = _drop(x, module.lora_dropout, stream) @ module.lora_a.t()
        out = out + module.lora_scaling * low @ module.lora_b.t()
    return out


def _drop(x: Tensor, module: nn.Dropout, stream: DropoutStream | None) -> Tensor:
    if not module.training or module.p == 0:
        return x
    assert stream is not None
    return x * stream.keep(x.shape, module.p, x.dtype) * rescale(module.p)
